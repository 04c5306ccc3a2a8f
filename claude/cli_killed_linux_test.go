package claude_test

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
)

// The test binary installs into this folder, with the npm of the other
// variable, until it is killed.
const (
	killedDirEnv = "VIVARIUM_TEST_INSTALL_DIR"
	killedNPMEnv = "VIVARIUM_TEST_INSTALL_NPM"
)

func init() {
	if dir := os.Getenv(killedDirEnv); dir != "" && len(os.Args) == 1 {
		_, _ = claude.Locate(context.Background(), &claude.LocateOptions{
			CacheDir: dir, Version: fakeVersion, Integrity: "sha512-", NPM: os.Getenv(killedNPMEnv),
		})
		os.Exit(1)
	}
}

func TestInstallAfterAKilledInstaller(t *testing.T) {
	archive, sum := cliPackage(t)
	hanging := newNPM(t, `cat '`+archive+`' > "$dest/p.tgz.part"; exec sleep 600`)
	opts := installing(t, hanging, sum)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	installer := exec.Command(self)
	installer.Env = append(os.Environ(), killedDirEnv+"="+opts.CacheDir, killedNPMEnv+"="+hanging.path)
	installer.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := installer.Start(); err != nil {
		t.Fatal(err)
	}
	awaitCalls(t, hanging)
	if err := syscall.Kill(-installer.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = installer.Wait() // it was killed

	opts.NPM = newNPM(t, `cat '`+archive+`' > "$dest/p.tgz"`).path
	if _, err := claude.Locate(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, opts.CacheDir); len(got) != 2 {
		t.Errorf("the cache holds %q, want the version and the lock", got)
	}
}
