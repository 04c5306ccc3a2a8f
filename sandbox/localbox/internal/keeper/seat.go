//go:build unix

package keeper

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/helper"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Limits of a sandbox whose Config says nothing. Memory and Disk are lowered to
// what the machine has.
const (
	DefaultMemory = 2 << 30 // bytes
	DefaultDisk   = 2 << 30 // bytes
	DefaultPids   = 512

	// DefaultTimeout is how long a sandbox lives at the most, also when nobody
	// is left who could end it.
	DefaultTimeout = time.Hour

	minMemory = 32 << 20 // the helper itself needs some
	minDisk   = 1 << 20
)

// seat is what a sandbox takes up on this machine: a user, groups, directories.
type seat interface {
	// role is how the first process is started.
	role() (role string, env []string, attr *syscall.SysProcAttr)
	// setUp tells the first process what to do before it is a helper.
	setUp(conn *wire.Conn, b *box) error
	// oomFile counts kills for lack of memory, "" where nothing does.
	oomFile() string
	// removeGroups removes the control groups.
	removeGroups() error
	// leave gives back what is neither a file nor a group.
	leave()
}

// noSeat is that of a sandbox that has none yet.
type noSeat struct{}

func (noSeat) role() (string, []string, *syscall.SysProcAttr) { return "", nil, nil }
func (noSeat) setUp(*wire.Conn, *box) error                   { return nil }
func (noSeat) oomFile() string                                { return "" }
func (noSeat) removeGroups() error                            { return nil }
func (noSeat) leave()                                         {}

// takeSeat makes ready what the sandbox needs before its first process, and
// says what its helper will be told.
func (b *box) takeSeat() (*wire.Boot, error) {
	cfg := &b.req.Config
	if err := check(cfg, b.req.Root); err != nil {
		return nil, err
	}
	boot := &wire.Boot{
		Plain: b.req.Plain, Root: "/", IdleTimeout: int64(cfg.IdleTimeout), Family: b.rec.Family,
	}
	if b.req.Plain {
		if err := b.takePlain(boot); err != nil {
			return nil, err
		}
	} else if err := b.takeIsolated(boot); err != nil {
		return nil, err
	}
	if b.req.Root != nil {
		boot.Env = append(slices.Clone(b.req.Root.Env), boot.Env...)
	}
	boot.Env = append(append(boot.Env, cfg.Env...), cfg.Secrets...)
	boot.Dir = b.rec.Info.Dir
	return boot, nil
}

// elsewhere refuses what only a place that keeps things by name can give.
func elsewhere(cfg *driver.Config) error {
	for _, u := range []struct {
		set             bool
		setting, reason string
	}{
		{cfg.GPU != "", "GPU", "sandboxes of this machine have none"},
		{cfg.Cloud != "", "Cloud", "sandboxes run on this machine"},
		{len(cfg.Regions) > 0, "Regions", "sandboxes run on this machine"},
		{len(cfg.SecretNames) > 0, "SecretNames", "nothing is kept here by name; use Secrets"},
		{len(cfg.Volumes) > 0, "Volumes", "use Mounts, or a storage.Volume"},
		{len(cfg.Buckets) > 0, "Buckets", "use a storage.Volume"},
		{len(cfg.HeaderRules) > 0, "HeaderRules", "serve the credential from outside with Sandbox.Listen, as claude/broker does"},
	} {
		if u.set {
			return &driver.UnsupportedError{Setting: u.setting, Reason: u.reason}
		}
	}
	return nil
}

// check refuses what no sandbox here can have.
func check(cfg *driver.Config, root *wire.Root) error {
	if err := elsewhere(cfg); err != nil {
		return err
	}
	if image := cfg.Image; root == nil && (image.Base != "" && image.Base != "host" || len(image.Commands) > 0) {
		return &driver.UnsupportedError{Setting: "Image", Reason: "plain processes have this machine's files"}
	}
	if cfg.Memory != 0 && cfg.Memory < minMemory {
		return fmt.Errorf("Memory below %d bytes: %w", minMemory, driver.ErrInvalid)
	}
	if cfg.Disk != 0 && cfg.Disk < minDisk {
		return fmt.Errorf("Disk below %d bytes: %w", minDisk, driver.ErrInvalid)
	}
	if len(cfg.Mounts) > wire.MaxFDs {
		return fmt.Errorf("more than %d Mounts: %w", wire.MaxFDs, driver.ErrInvalid)
	}
	if err := egress.Check(cfg.Network); err != nil {
		return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	for _, m := range cfg.Mounts {
		if err := checkMount(m); err != nil {
			return err
		}
	}
	return nil
}

func checkMount(m driver.Mount) error {
	if !filepath.IsAbs(m.Source) || !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
		return fmt.Errorf("mount of %q on %q: paths must be absolute and clean: %w", m.Source, m.Target, driver.ErrInvalid)
	}
	for _, top := range []string{"/proc", "/sys", "/dev"} {
		if m.Target == top || strings.HasPrefix(m.Target, top+"/") {
			return fmt.Errorf("mount on %s: %w", m.Target, driver.ErrInvalid)
		}
	}
	return nil
}

// plainSeat is that of a sandbox that is not isolated.
type plainSeat struct{ noSeat }

func (plainSeat) role() (string, []string, *syscall.SysProcAttr) {
	return helper.Role, helper.Environ(), &syscall.SysProcAttr{Setsid: true}
}

// takePlain makes the directories of a sandbox that is not isolated, and says
// what it cannot give.
func (b *box) takePlain(boot *wire.Boot) error {
	cfg, info := &b.req.Config, &b.rec.Info
	if cfg.Network.Mode == driver.NetworkAllowlist {
		return &driver.UnsupportedError{Setting: "Network.Domains", Reason: "plain processes reach whatever this machine reaches"}
	}
	if b.req.Root != nil {
		return &driver.UnsupportedError{Setting: "Image", Reason: "plain processes have this machine's files"}
	}
	for _, m := range cfg.Mounts {
		if filepath.Clean(m.Source) != m.Target {
			return &driver.UnsupportedError{Setting: "Mounts", Reason: "plain processes see this machine's files where they are; a mount must have the same Source and Target"}
		}
	}
	files, err := filepath.EvalSymlinks(b.dir.Box(info.ID))
	if err != nil {
		return err
	}
	files = filepath.Join(files, "files")
	for _, sub := range []string{"workspace", "home", "tmp"} {
		if err := os.MkdirAll(filepath.Join(files, sub), 0o700); err != nil {
			return err
		}
	}
	boot.Root = files
	b.seat = plainSeat{}
	if err := b.plainDir(files); err != nil {
		return err
	}
	const why = "plain processes (AllowUnisolated) are not limited"
	for _, limit := range []string{"Memory", "Pids", "Disk"} {
		info.Unenforced[limit] = why
	}
	if cfg.CPU > 0 {
		info.Unenforced["CPU"] = why
	}
	if cfg.Network.Mode == driver.NetworkNone {
		info.Unenforced["Network"] = "plain processes reach whatever this machine reaches"
	}
	return nil
}

// plainDir settles where commands start: below the sandbox's own directory, or
// in one of this machine's that is there.
func (b *box) plainDir(files string) error {
	info := &b.rec.Info
	workspace := filepath.Join(files, "workspace")
	switch {
	case info.Dir == "" || info.Dir == "/workspace":
		info.Dir = workspace
		return nil
	case strings.HasPrefix(info.Dir, "/workspace/"):
		info.Dir = filepath.Join(workspace, strings.TrimPrefix(info.Dir, "/workspace/"))
		return os.MkdirAll(info.Dir, 0o700)
	}
	st, err := os.Stat(info.Dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: info.Dir, Err: syscall.ENOTDIR}
	}
	return err
}
