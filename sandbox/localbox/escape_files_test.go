//go:build linux

package localbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// traps are links and files inside that might lead a careless file API astray.
// %[1]s is a file of the host, %[2]s its directory.
const traps = `
mkdir -p traps/real && cd traps && echo inside >real/id_probe
ln -s %[1]s absolute
ln -s ../../../../../../../../../..%[1]s relative
ln -s %[2]s directory
ln -s nested2 nested1; ln -s nested3 nested2; ln -s directory/id_probe nested3
ln -s /proc/1/root%[1]s magic-root
ln -s /proc/1/cwd%[1]s magic-cwd
ln -s /proc/self/root%[1]s magic-self
ln -s /proc/self/fd/0 magic-fd
ln -s /proc/1/environ magic-environ
ln -s /proc/1/mem magic-mem
ln -s /dev/zero device
ln -s loop2 loop1; ln -s loop1 loop2
ln -s . self
mkfifo fifo; ln -s fifo fifo-link
`

// trapNames are the ways in: each of them must be an error, or the inside's own.
var trapNames = []string{
	"absolute", "relative", "directory/id_probe", "nested1", "nested2", "nested3", "magic-root", "magic-cwd", "magic-self", "magic-fd",
	"magic-environ", "magic-mem", "device", "loop1", "loop1/x", "fifo", "fifo-link", "directory", strings.Repeat("self/", 60) + "absolute",
	"real/../../../../../../../../../..%[1]s",
}

// patience bounds one use of a file that must not block.
const patience = 20 * time.Second

func TestProbesFilesStayInside(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	sh(t, sb, fmt.Sprintf(traps, facts.SecretFile, facts.SecretDir))
	names := []string{facts.SecretFile, "/proc/1/root" + facts.SecretFile, "/proc/self/environ", "/proc/1/environ", "/dev/zero", "/dev/tty", "/sys/kernel/uevent_helper"}
	for _, n := range trapNames {
		names = append(names, sb.Dir()+"/traps/"+strings.ReplaceAll(n, "%[1]s", facts.SecretFile))
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) { useTrap(t, sb, name) })
	}
	t.Run("the host's file by all of them", func(t *testing.T) {
		if b, err := os.ReadFile(facts.SecretFile); err != nil || string(b) != "secret\n" {
			t.Errorf("it is %q, %v", b, err)
		}
		st, err := os.Stat(facts.SecretFile)
		if err != nil || st.Mode().Perm() != 0o666 || st.ModTime().Year() == 2001 {
			t.Errorf("it is %v, %v", st, err)
		}
	})
}

// useTrap does with a name all that the file API can. The driver is called
// itself, as the portable type would clean the name first.
func useTrap(t *testing.T, sb *sandbox.Sandbox, name string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	files := sb.Driver().Files()
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_TRUNC} {
		f, err := files.OpenFile(ctx, name, flag, 0o666)
		if err != nil {
			continue
		}
		b := make([]byte, 64)
		n, _ := f.Read(b)
		if bytes.Contains(b[:n], []byte("secret")) || strings.Contains(name, "/proc/") {
			t.Errorf("read %q", b[:n])
		}
		if flag != os.O_RDONLY {
			f.Write([]byte("overwritten"))
		}
		f.Close()
	}
	target := sb.Dir() + "/moved"
	for what, use := range map[string]func() error{
		"stat": func() error {
			st, err := files.Stat(ctx, name)
			if err == nil && st.Size() == int64(len("secret\n")) && !strings.Contains(name, "real") {
				return fmt.Errorf("is the host's: %v", st.Size())
			}
			return nil
		},
		"readdir": func() error {
			list, err := files.ReadDir(ctx, name)
			for _, entry := range list {
				if err == nil && entry.Name() == "id_probe" && !strings.HasSuffix(name, "real") {
					return errors.New("lists the host's directory")
				}
			}
			return nil
		},
		"chmod":   func() error { files.Chmod(ctx, name, 0o600); return nil },
		"chtimes": func() error { files.Chtimes(ctx, name, time.Unix(1e9, 0), time.Unix(1e9, 0)); return nil },
		"mkdir":   func() error { files.Mkdir(ctx, name+"/made", 0o777); return nil },
		"symlink": func() error { files.Symlink(ctx, "x", name+"/link"); return nil },
		"rename":  func() error { files.Rename(ctx, name+"/id_probe", target); return nil },
		"remove":  func() error { files.Remove(ctx, name+"/id_probe"); return nil },
	} {
		if err := use(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if ctx.Err() != nil {
		t.Errorf("it blocked for %v", patience)
	}
}

// TestProbesFileRace swaps a directory for a link to the host's while this
// process reads through it.
func TestProbesFileRace(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	sh(t, sb, "mkdir real && echo inside >real/id_probe && ln -s "+facts.SecretDir+" outside && ln -s real here")
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	swap := sb.Command(ctx, "sh", "-c", "while :; do ln -sfn outside here; ln -sfn real here; done")
	if err := swap.Start(); err != nil {
		t.Fatal(err)
	}
	fsys := sb.FS(testContext(t))
	var read, refused int
	for range 400 {
		b, err := fsys.ReadFile("here/id_probe")
		switch {
		case err != nil:
			refused++
		case string(b) == "inside\n":
			read++
		default:
			t.Fatalf("read %q", b)
		}
		if err := fsys.WriteFile("here/written", nil, 0o600); err != nil {
			refused++
		}
	}
	cancel()
	swap.Wait()
	t.Logf("%d read, %d refused", read, refused)
}
