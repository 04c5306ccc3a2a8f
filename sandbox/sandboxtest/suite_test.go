package sandboxtest

import (
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
