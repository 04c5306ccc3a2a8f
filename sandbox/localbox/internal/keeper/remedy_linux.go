//go:build linux && (amd64 || arm64)

package keeper

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// facts are what decides which remedy to name.
type facts struct {
	root      bool
	container bool
	kernel    string
	old       bool   // before 5.12
	maxUserNS string // user.max_user_namespaces
	debian    string // kernel.unprivileged_userns_clone
	apparmor  string // kernel.apparmor_restrict_unprivileged_userns
}

func lookAround(p *place) *facts {
	f := &facts{
		root:      p.privileged,
		old:       !kernelAtLeast(5, 12),
		maxUserNS: sysctl("user/max_user_namespaces"),
		debian:    sysctl("kernel/unprivileged_userns_clone"),
		apparmor:  sysctl("kernel/apparmor_restrict_unprivileged_userns"),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.kernel = unix.ByteSliceToString(u.Release[:])
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			f.container = true
		}
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		f.container = true
	}
	return f
}

func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Remedies, one for each thing that is known to be in the way.
const (
	remedySwitchedOff = "user namespaces are switched off (user.max_user_namespaces is 0); " +
		"an administrator can switch them on: sysctl -w user.max_user_namespaces=65536"
	remedyDebian = "user namespaces are for root only (kernel.unprivileged_userns_clone is 0); " +
		"an administrator can open them: sysctl -w kernel.unprivileged_userns_clone=1"
	remedyAppArmor = "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1, as on Ubuntu 23.10 and later); " +
		"an administrator can lift that: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or add an AppArmor profile for this program that allows userns; or run as root"
	remedyContainer = "this container forbids namespaces; start it with --privileged, or with " +
		"--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
	remedyProc = "parts of /proc are hidden, as containers do, and then the kernel allows no new /proc; start the container with " +
		"--security-opt systempaths=unconfined (Docker), --security-opt unmask=ALL (Podman) or --privileged"
	remedyRoot = "root lacks CAP_SETUID, CAP_SETGID or CAP_SYS_ADMIN here; start the container with --privileged, or run as an ordinary user"
	remedyNone = "the kernel refused; run where user namespaces are allowed, or accept plain processes with Options.AllowUnisolated"
)

// remedy names what helps against err.
func (f *facts) remedy(err error) string {
	refused := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
	var step *stepError
	inside := errors.As(err, &step)
	switch {
	case errors.Is(err, errRootUser):
		return remedyRoot
	case f.old || errors.Is(err, syscall.ENOSYS):
		return fmt.Sprintf("Linux 5.12 or newer is needed, this is %s (or a filter hides its system calls)", f.kernel)
	case f.maxUserNS == "0":
		return remedySwitchedOff
	case !f.root && f.debian == "0":
		return remedyDebian
	case !f.root && f.apparmor == "1" && refused:
		return remedyAppArmor
	case inside && step.step == "mount proc" && refused:
		return remedyProc
	case f.container:
		return remedyContainer
	}
	return remedyNone
}
