package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a Runner that is no sandbox: plain processes of this machine.
type host struct {
	path   string // "": as here
	before string // shell that runs before each command
}

func (h host) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	args = append([]string{"-c", h.before + "\n" + `exec "$@"`, "sh", name}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if h.path != "" {
		cmd.Env = []string{"PATH=" + h.path}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdin, cmd.Stdout = stdin, stdout
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Run(); err != nil {
		return errors.Join(err, errors.New(words.String()))
	}
	return nil
}

// workdir gives a directory's name in a place that is removed even where a test
// left directories without write permission.
func workdir(t testing.TB) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "storage-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-c", `chmod -R u+rwX "$1" && rm -rf "$1"`, "sh", parent).CombinedOutput(); err != nil {
			t.Errorf("clean-up: %v: %s", err, out)
		}
	})
	return filepath.Join(parent, "work")
}

// busyboxPath makes a directory with nothing but busybox's commands.
func busyboxPath(t testing.TB) string {
	t.Helper()
	binary, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is absent; install it (Debian: apt-get install busybox)")
	}
	bin := t.TempDir()
	applets, err := exec.Command(binary, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if err := os.Symlink(binary, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

func requireGNUTar(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		t.Skip("GNU tar is absent; install it as tar on PATH")
	}
}

func TestVolumeWithGNUTar(t *testing.T) {
	requireGNUTar(t)
	storagetest.ExerciseVolume(t, func(t *testing.T) (storage.Runner, string) { return host{}, workdir(t) })
}

func TestVolumeWithBusybox(t *testing.T) {
	bin := busyboxPath(t)
	storagetest.ExerciseVolume(t, func(t *testing.T) (storage.Runner, string) { return host{path: bin}, workdir(t) })
}

func TestVolumeOfLocalDirectory(t *testing.T) {
	requireGNUTar(t)
	storagetest.ExerciseVolume(t, func(t *testing.T) (storage.Runner, string) { return storage.Local{}, workdir(t) })
}
