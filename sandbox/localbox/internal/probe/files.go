//go:build linux

package probe

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func fileProbes() []Probe {
	return []Probe{
		{Name: "password hashes and host keys", run: func(*Facts) (string, bool) {
			return opens(os.O_RDONLY, "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key")
		}},
		{Name: "host users", run: hostUsers},
		{Name: "host home", run: hostHome},
		{Name: "host file by path", run: hostFile},
		{Name: "host file by symbolic link", run: hostFileByLink},
		{Name: "host file by dot-dot", run: hostFileByDots},
		{Name: "host directory written", run: hostDirWritten},
		{Name: "read-only file written", run: readOnlyWritten},
		{Name: "read-only directory written", run: readOnlyDirWritten},
		{Name: "read-only file linked and renamed", run: readOnlyMoved},
		{Name: "own binary written", run: ownBinary},
		{Name: "system directories written", Destructive: true, run: systemWritten},
		{Name: "linker preload and account files written", run: func(*Facts) (string, bool) {
			return opens(os.O_WRONLY, "/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/nsswitch.conf", "/etc/hosts", "/etc/resolv.conf")
		}},
		{Name: "setuid and set-capability files", run: setuidFiles},
		{Name: "open by handle", run: openByHandle},
	}
}

// hostUsers: the inside has an /etc/passwd of its own, with a few accounts and
// no home of the host's in it.
func hostUsers(f *Facts) (string, bool) {
	if f.SecretDir == "" {
		return skip()
	}
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return held("%v", err)
	}
	if lines := strings.Count(string(b), "\n"); lines > 8 {
		return got("/etc/passwd has %d accounts", lines)
	}
	return held("%d bytes of its own", len(b))
}

func hostHome(f *Facts) (string, bool) {
	if f.SecretDir == "" {
		return skip()
	}
	entries, err := os.ReadDir(f.SecretDir)
	if len(entries) > 0 {
		return got("%s is in it", entries[0].Name())
	}
	return held("%v", err)
}

func hostFile(f *Facts) (string, bool) {
	if f.SecretFile == "" {
		return skip()
	}
	return opens(os.O_RDONLY, f.SecretFile, "/proc/self/root"+f.SecretFile, "/proc/thread-self/root"+f.SecretFile, "/dev/fd/../../.."+f.SecretFile)
}

func hostFileByLink(f *Facts) (string, bool) {
	if f.SecretFile == "" {
		return skip()
	}
	link := filepath.Join(f.Workspace, ".probe-link")
	for _, to := range []string{f.SecretFile, "/proc/1/root" + f.SecretFile, "/proc/1/cwd" + f.SecretFile} {
		os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			return held("%v", err)
		}
		defer os.Remove(link)
		if text, through := opens(os.O_RDONLY, link); through {
			return text, through
		}
	}
	return held("the links lead nowhere")
}

func hostFileByDots(f *Facts) (string, bool) {
	if f.SecretFile == "" {
		return skip()
	}
	dots := strings.Repeat("../", 64)
	return opens(os.O_RDONLY, dots+f.SecretFile[1:], "/"+dots+f.SecretFile[1:], f.Workspace+"/"+dots+f.SecretFile[1:], "/proc/self/cwd/"+dots+f.SecretFile[1:])
}

func creates(names ...string) (string, bool) {
	var text string
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			f.Close()
			os.Remove(name)
			return got("%s was made", name)
		}
		text = err.Error()
	}
	return held("%s", text)
}

func hostDirWritten(f *Facts) (string, bool) {
	if f.SecretDir == "" {
		return skip()
	}
	return creates(filepath.Join(f.SecretDir, "probe"), filepath.Join("/proc/1/root", f.SecretDir, "probe"))
}

func readOnlyWritten(f *Facts) (string, bool) {
	if f.ReadOnlyFile == "" {
		return skip()
	}
	return first(map[string]func() error{
		"open": func() error {
			h, err := os.OpenFile(f.ReadOnlyFile, os.O_WRONLY, 0)
			if err == nil {
				h.Close()
			}
			return err
		},
		"truncate": func() error { return os.Truncate(f.ReadOnlyFile, 0) },
		"chmod":    func() error { return os.Chmod(f.ReadOnlyFile, 0o666) },
		"utimes":   func() error { return unix.Utimes(f.ReadOnlyFile, nil) },
		"xattr":    func() error { return unix.Setxattr(f.ReadOnlyFile, "user.probe", []byte("x"), 0) },
		"chown":    func() error { return os.Chown(f.ReadOnlyFile, os.Getuid(), os.Getgid()) },
		"reopen": func() error {
			h, err := os.Open(f.ReadOnlyFile)
			if err != nil {
				return err
			}
			defer h.Close()
			w, err := os.OpenFile("/proc/self/fd/"+itoa(int(h.Fd())), os.O_WRONLY, 0)
			if err == nil {
				w.Close()
			}
			return err
		},
	})
}

func readOnlyDirWritten(f *Facts) (string, bool) {
	if f.ReadOnlyDir == "" {
		return skip()
	}
	if text, through := creates(filepath.Join(f.ReadOnlyDir, "probe")); through {
		return text, through
	}
	err := os.Mkdir(filepath.Join(f.ReadOnlyDir, "probe"), 0o700)
	if err == nil {
		os.Remove(filepath.Join(f.ReadOnlyDir, "probe"))
	}
	return judge(err)
}

func readOnlyMoved(f *Facts) (string, bool) {
	if f.ReadOnlyFile == "" {
		return skip()
	}
	aside := f.ReadOnlyFile + ".probe"
	if err := os.Rename(f.ReadOnlyFile, aside); err == nil {
		return got("renamed, and back: %v", os.Rename(aside, f.ReadOnlyFile))
	}
	if err := os.Link(f.ReadOnlyFile, filepath.Join(f.Workspace, ".probe-hard")); err == nil {
		os.Remove(filepath.Join(f.Workspace, ".probe-hard"))
		return got("linked into the workspace")
	}
	err := os.Link(f.ReadOnlyFile, aside)
	if err == nil {
		os.Remove(aside)
	}
	return judge(err)
}

// ownBinary: the mounted program, as the mounted CLI is.
func ownBinary(*Facts) (string, bool) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return held("%v", err)
	}
	st, err := os.Stat(exe)
	if err != nil {
		return held("%v", err)
	}
	// Writing to a program that runs fails on every system; its mode and its
	// place do not have that protection.
	if err := os.Chmod(exe, st.Mode().Perm()); err == nil {
		return got("the mode of %s can be changed", exe)
	}
	return creates(exe + ".probe")
}

func systemWritten(f *Facts) (string, bool) {
	var names []string
	dirs := []string{"/", "/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/var", "/run", "/sys", "/proc", "/boot", "/root", "/home", "/mnt", "/srv"}
	if f.Root { // the rest is its own
		dirs = []string{"/dev", "/proc", "/proc/sys", "/proc/1", "/proc/driver"}
	}
	for _, dir := range dirs {
		names = append(names, filepath.Join(dir, "vivarium-probe"))
	}
	return creates(names...)
}

// setuidFiles: with no new privileges they would have no effect, but neither
// may one be made that a process outside could run.
func setuidFiles(f *Facts) (string, bool) {
	name := filepath.Join(f.Workspace, ".probe-setuid")
	if err := os.WriteFile(name, nil, 0o700); err != nil {
		return held("%v", err)
	}
	defer os.Remove(name)
	capability := []byte{1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(name, "security.capability", capability, 0); err == nil && !f.Root {
		return got("a file with capabilities was made")
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/usr/bin", &st); err == nil && st.Flags&unix.ST_NOSUID == 0 {
		return got("/usr is mounted with setuid programs in effect")
	}
	if err := unix.Statfs(f.Workspace, &st); err == nil && st.Flags&unix.ST_NOSUID == 0 {
		return got("the workspace is mounted with setuid programs in effect")
	}
	return held("mounted without")
}

// openByHandle opens files of a file system by number, past every path. A
// handle that is out of date has passed the check.
func openByHandle(*Facts) (string, bool) {
	mount, err := unix.Open("/usr", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return held("%v", err)
	}
	defer unix.Close(mount)
	handle, _, err := unix.NameToHandleAt(mount, "bin", 0)
	if err != nil {
		inode2 := []byte{2, 0, 0, 0, 0, 0, 0, 0}
		handle = unix.NewFileHandle(1, inode2)
	}
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err, unix.ESTALE)
}
