//go:build linux && (amd64 || arm64)

package keeper

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestRemedy(t *testing.T) {
	clone := func(e error) error { return fmt.Errorf("make namespaces: %w", e) }
	inside := func(step string, e error) error { return &stepError{step: step, err: e} }
	for _, c := range []struct {
		name  string
		facts facts
		err   error
		want  string
	}{
		{"switched off", facts{maxUserNS: "0"}, clone(syscall.ENOSPC), remedySwitchedOff},
		{"Debian's switch", facts{debian: "0"}, clone(syscall.EPERM), remedyDebian},
		{"Debian's switch and root", facts{debian: "0", root: true, container: true}, clone(syscall.EPERM), remedyContainer},
		{"AppArmor at clone", facts{apparmor: "1"}, clone(syscall.EACCES), remedyAppArmor},
		{"AppArmor after clone", facts{apparmor: "1"}, inside("make mounts private", syscall.EPERM), remedyAppArmor},
		{"AppArmor is not to blame", facts{apparmor: "1"}, inside("mount the disk", syscall.ENOMEM), remedyNone},
		{"masked proc", facts{container: true}, inside("mount proc", syscall.EPERM), remedyProc},
		{"container", facts{container: true}, clone(syscall.EPERM), remedyContainer},
		{"root without rights", facts{container: true}, errRootUser, remedyRoot},
		{"old kernel", facts{old: true, kernel: "5.4.0"}, inside("open what is shown", syscall.ENOSYS), "this is 5.4.0"},
		{"filtered call", facts{kernel: "6.1.0"}, inside("open what is shown", syscall.ENOSYS), "5.12 or newer"},
		{"unknown", facts{}, clone(syscall.EPERM), remedyNone},
	} {
		if got := c.facts.remedy(c.err); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
