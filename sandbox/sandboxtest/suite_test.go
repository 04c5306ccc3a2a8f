package sandboxtest

import (
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSuiteOnPlainProcesses shows that the suite passes where the promises are
// kept, with what plain processes cannot keep named.
func TestSuiteOnPlainProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	s := &suite{open: newPlain(t).open, opts: Options{Deadline: time.Minute}, missing: map[Feature]string{}}
	s.without = map[string]string{
		"ContextEndsDaemons":          "plain processes: a daemon leaves its group",
		"KernelFilesAreRefused":       "plain processes: links are not resolved by name",
		"EnvHasNothingOfTheHost":      "plain processes see /proc",
		"PermissionOfTheSandboxsUser": "plain processes have this machine's permissions",
		"NothingInherited":            "plain processes inherit what this one did",
		"MountOfNothing":              "plain processes have no mounts",
	}
	s.run(t)
}

// TestJobsWithBusybox runs the tests of jobs with nothing but busybox.
func TestJobsWithBusybox(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is absent; install it (Debian: apt-get install busybox)")
	}
	dir := t.TempDir()
	if out, err := exec.Command(busybox, "--install", "-s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv("PATH", dir)
	s := &suite{open: newPlain(t).open, opts: Options{Deadline: time.Minute}, missing: map[Feature]string{}}
	s.provider = s.open(t)
	s.shared = s.create(t, nil)
	for _, test := range s.jobTests() {
		t.Run(test.name, test.run)
	}
}
