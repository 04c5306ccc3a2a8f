//go:build linux

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// etcShown is what is shown of the machine's /etc: how programs find their
// libraries, certificates and defaults. Everything else there is nobody's
// business inside: passwords, tokens in an npmrc, names of other users.
var etcShown = []string{
	"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ca-certificates",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted",
	"/etc/crypto-policies",
	"/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/os-release", "/etc/debian_version",
	"/etc/mime.types", "/etc/magic", "/etc/services", "/etc/protocols", "/etc/rpc", "/etc/networks",
	"/etc/gai.conf", "/etc/host.conf", "/etc/inputrc", "/etc/terminfo", "/etc/fonts",
	"/etc/python3", "/etc/perl", "/etc/java-17-openjdk", "/etc/java-21-openjdk",
}

// ShownOfEtc reports whether a path in this machine's /etc is shown, or is above
// or below one that is.
func ShownOfEtc(path string) bool {
	return slices.ContainsFunc(etcShown, func(shown string) bool {
		return path == shown || strings.HasPrefix(path, shown+"/") || strings.HasPrefix(shown, path+"/")
	})
}

func (b *builder) etc() error {
	for _, path := range etcShown {
		if err := show(b.sources, path); err != nil {
			return err
		}
	}
	shell := shellBelow(".")
	host := b.spec.Hostname
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n" +
			fmt.Sprintf("%s:x:%d:%d::%s:%s\n", User, UID, UID, Home, shell) + nobodyPasswd,
		"group":       fmt.Sprintf("root:x:0:\n%s:x:%d:\n", User, UID) + nobodyGroup,
		"hostname":    host + "\n",
		"hosts":       hostsFile(host),
		"resolv.conf": resolvConf,
	} {
		if err := writeEtc(".", name, text); err != nil {
			return err
		}
	}
	if err := writeEtcCommon(".", shell); err != nil {
		return err
	}
	return os.Symlink("/proc/mounts", "etc/mtab")
}

// Parts of files in /etc.
const (
	nobodyPasswd = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	nobodyGroup  = "nogroup:x:65534:\n"
	resolvConf   = "# There is no name service in a sandbox; the proxy resolves names.\n"
)

func hostsFile(host string) string {
	return "127.0.0.1 localhost " + host + "\n::1 localhost ip6-localhost ip6-loopback\n"
}

// shellBelow is what /etc/passwd names, of the programs below base.
func shellBelow(base string) string {
	if _, err := os.Stat(filepath.Join(base, "usr/bin/bash")); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

func writeEtc(base, name, text string) error {
	path := filepath.Join(base, "etc", name)
	if err := mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// writeEtcCommon writes what is the same wherever this machine's programs run.
func writeEtcCommon(base, shell string) error {
	for name, text := range map[string]string{
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"shells":        "/bin/sh\n" + shell + "\n",
		"environment":   "",
		"fstab":         "",
	} {
		if err := writeEtc(base, name, text); err != nil {
			return err
		}
	}
	return nil
}

// procMasked are files and directories of /proc that tell about the machine, or
// reach into it. Most need privileges anyway.
var procMasked = []string{
	"acpi", "asound", "bus", "config.gz", "driver", "fs", "interrupts", "iomem", "ioports", "irq",
	"kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
	"latency_stats", "mtrr", "pressure", "sched_debug", "scsi", "slabinfo", "sysrq-trigger", "sysvipc",
	"timer_list", "timer_stats", "vmallocinfo",
}

// proc must run while the machine's /proc is still mounted: the kernel allows a
// new one only where one can be seen in full already.
func (b *builder) proc() error {
	if err := b.point("proc", 0o555); err != nil {
		return err
	}
	if err := mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("proc/sys", "proc/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	err := unix.MountSetattr(unix.AT_FDCWD, "proc/sys", unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
	})
	if err != nil {
		return fmt.Errorf("make proc/sys read-only: %w", err)
	}
	return b.maskProc()
}

// point makes a directory of the new root to mount something on, where an image
// has not got it. Nothing that an image has there may lead elsewhere.
func (b *builder) point(name string, mode fs.FileMode) error {
	err := os.Mkdir(name, mode)
	if b.spec.Image == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(name)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "mount", Path: "/" + name, Err: unix.ENOTDIR}
	}
	return err
}

// maskProc puts an empty file or directory over each.
func (b *builder) maskProc() error {
	empty, nothing := ".empty", ".nothing"
	if b.spec.Image != nil { // the current directory is the image's
		empty, nothing = "../.empty", "../.nothing"
	}
	if err := os.WriteFile(empty, nil, 0o444); err != nil {
		return err
	}
	if err := os.Mkdir(nothing, 0o555); err != nil {
		return err
	}
	for _, name := range procMasked {
		path := "proc/" + name
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		over := empty
		if info.IsDir() {
			over = nothing
		} else if info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := mount(over, path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: readOnly}); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return errors.Join(os.Remove(empty), os.Remove(nothing))
}

func (b *builder) dev() error {
	if err := b.point("dev", 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", "dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "size=64k,nr_inodes=64,mode=755"); err != nil {
		return err
	}
	for _, path := range devices {
		if err := makePoint(path, false); err != nil {
			return err
		}
		if err := attach(b.sources[path].fd, path); err != nil {
			return err
		}
	}
	for _, dir := range []string{"dev/pts", "dev/shm"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("devpts", "dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return err
	}
	if err := attach(b.sources["/dev/shm"].fd, "/dev/shm"); err != nil {
		return err
	}
	for link, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join("dev", link)); err != nil {
			return err
		}
	}
	// Nothing is added later: read-only, but for the nodes, which are mounts.
	return unix.MountSetattr(unix.AT_FDCWD, "dev", 0, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV,
	})
}
