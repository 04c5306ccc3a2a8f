//go:build unix

package localbox_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("LOCALBOX_TEST_ROLE"); role != "" {
		os.Exit(childRoles[role]())
	}
	goleak.VerifyTestMain(m)
}

// childRoles are what this test binary does as a child of a test.
var childRoles = map[string]func() int{}

// deadline bounds what should take milliseconds.
const deadline = time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// stateDir is a state directory for one test. The sandboxes in it end with it.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// open opens a provider, or skips the test where nothing can be isolated.
func open(t *testing.T, dir string) *sandbox.Provider {
	t.Helper()
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("sandboxes are not possible here: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the provider: %v", err)
		}
	})
	return p
}

// create makes a sandbox that ends with the test.
func create(t *testing.T, p *sandbox.Provider, cfg *sandbox.Config) *sandbox.Sandbox {
	t.Helper()
	sb, err := p.Create(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, sb) })
	return sb
}

func end(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := sb.Terminate(ctx); err != nil {
		t.Errorf("terminate %s: %v", sb.ID(), err)
	}
	if err := sb.Close(); err != nil {
		t.Errorf("close %s: %v", sb.ID(), err)
	}
}

// sh runs a script that must succeed and returns what it printed.
func sh(t *testing.T, sb *sandbox.Sandbox, script string) string {
	t.Helper()
	out, err := sb.Command(testContext(t), "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("sh -c %q: %v\n%s", script, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}

// ordinaryUser is a user that no machine has.
const ordinaryUser = 64_321

// TestAsOrdinaryUser runs the tests of this package once more, as somebody else.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is an ordinary user already")
	}
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	home := t.TempDir()
	for dir := home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, ordinaryUser, ordinaryUser); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=" + userTests, "-test.timeout=10m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	binary := "/proc/self/exe"
	if raceDetector {
		binary = withoutRace(t, home)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH"), "GOCACHE=" + home + "/gocache"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser}}
	out, err := cmd.CombinedOutput()
	t.Logf("as user %d:\n%s", ordinaryUser, out)
	if err != nil {
		t.Error(err)
	}
}

// withoutRace builds these tests without the race detector, which root's have: each
// sandbox starts this program twice, and that takes several times as long with it.
// Without a cgroup memory is limited by RLIMIT_DATA besides, into which its shadow
// memory does not fit.
func withoutRace(t *testing.T, dir string) string {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is not on PATH")
	}
	binary := filepath.Join(dir, "localbox.test")
	if out, err := exec.CommandContext(t.Context(), goTool, "test", "-race=false", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	if err := os.Chmod(binary, 0o755); err != nil {
		t.Fatal(err)
	}
	return binary
}

// userTests are the tests that mean something different to an ordinary user.
const userTests = "^(TestProbes|TestConformance|TestPlain|TestKill|TestSurvives|TestLeaves|TestHostile|TestMany|TestCreateCancelled|TestMounts|TestSecrets|TestLimits|TestHostRoot|TestOwnRoot|TestImage|TestSnapshotDir|TestWritableMount|TestMountImage)"
