// Package driver is what a sandbox driver implements. Applications use package
// sandbox, which is one concrete type over these interfaces; only somebody who
// adds a place to run sandboxes needs this package.
//
// A driver returns raw errors: the portable type adds the operation and the
// sandbox's id once. Errors that mean something to callers match one of the
// sentinels here, or a standard one (fs.ErrNotExist, exec.ErrNotFound,
// errors.ErrUnsupported).
//
// The conformance suite every driver passes is package sandbox/sandboxtest.
package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Errors that drivers return and callers match with errors.Is.
var (
	// ErrNotFound: no sandbox has that id or name, or the image is unknown.
	ErrNotFound = errors.New("not found")
	// ErrEnded: the sandbox has ended; Info says how. Nothing runs in it again.
	ErrEnded = errors.New("sandbox has ended")
	// ErrNameInUse: a running sandbox already has that name.
	ErrNameInUse = errors.New("name is in use by a running sandbox")
	// ErrExhausted: a quota or a resource of the place is used up; trying later may work.
	ErrExhausted = errors.New("resources exhausted")
	// ErrUnavailable: the place did not answer; the operation may or may not have happened.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnauthenticated: the place refused the credentials.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrInvalid: the place refused the arguments.
	ErrInvalid = errors.New("invalid argument")
	// ErrNoIsolation: this machine cannot isolate a sandbox; the text names the remedy.
	ErrNoIsolation = errors.New("isolation is not possible here")
)

// UnsupportedError refuses a setting that a driver cannot honour. It matches
// errors.ErrUnsupported.
type UnsupportedError struct {
	Setting string // the field of the configuration, such as "Image.Commands"
	Reason  string // why, and what to do instead; may be empty
}

func (e *UnsupportedError) Error() string {
	if e.Reason == "" {
		return "setting " + e.Setting + " is not supported by this driver"
	}
	return "setting " + e.Setting + " is not supported by this driver: " + e.Reason
}

// Is reports whether target is errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// Provider makes and finds sandboxes in one place. Its methods are safe for
// concurrent use.
type Provider interface {
	// Create makes a sandbox and returns when commands can be started in it.
	// A setting it cannot honour is refused with *UnsupportedError. When Create
	// fails, nothing of the sandbox is left behind.
	Create(ctx context.Context, cfg *Config) (Sandbox, error)
	// Attach finds a running sandbox by its id, whoever made it. An unknown id
	// matches ErrNotFound, one that has ended ErrEnded.
	Attach(ctx context.Context, id string) (Sandbox, error)
	// Lookup gives the id of the running sandbox of that name, or ErrNotFound.
	Lookup(ctx context.Context, name string) (id string, err error)
	// List yields the sandboxes that match, in no promised order, to the end.
	// An error ends it.
	List(ctx context.Context, filter *Filter) iter.Seq2[*Info, error]
	// Close lets go of what the provider holds in this process. Sandboxes go on.
	Close() error
}

// Filter narrows a List. The zero value matches every running sandbox.
type Filter struct {
	Tags  map[string]string // those that have all of these
	Ended bool              // also those that have ended, as far as still known
}

// Sandbox is one sandbox as a driver sees it. Its methods are safe for
// concurrent use. After the sandbox ended they return an error that matches
// ErrEnded.
type Sandbox interface {
	ID() string
	Info(ctx context.Context) (*Info, error)
	// Start starts a command. ctx covers the start only. A program that is not
	// there matches exec.ErrNotFound, a directory that is not there fs.ErrNotExist.
	Start(ctx context.Context, e *Exec) (Process, error)
	// Files is the sandbox's file system.
	Files() FileSystem
	// Wait returns the final Info once the sandbox has ended, or ctx's error.
	Wait(ctx context.Context) (*Info, error)
	// Terminate ends every process and removes what the sandbox holds. It
	// returns when that is done; a sandbox that has ended already is no error.
	Terminate(ctx context.Context) error
	// Close lets go of the handle. The sandbox goes on.
	Close() error
}

// Snapshotter is implemented by a Sandbox that can save its files as an image
// from which new sandboxes start (Config.Image.Snapshot).
type Snapshotter interface {
	Snapshot(ctx context.Context) (id string, err error)
}

// Terminator is implemented by a Provider that can end a sandbox without
// attaching to it, so also one that does not answer. It is Sandbox.Terminate
// otherwise; an unknown id matches ErrNotFound.
type Terminator interface {
	Terminate(ctx context.Context, id string) error
}

// SnapshotDeleter is implemented by a Provider that can delete a snapshot.
type SnapshotDeleter interface {
	DeleteSnapshot(ctx context.Context, id string) error
}

// DirSnapshotter is implemented by a Sandbox that can save one directory. The id
// names an image whose root is that directory.
type DirSnapshotter interface {
	SnapshotDir(ctx context.Context, dir string) (id string, err error)
}

// ImageBuilder is implemented by a Provider that can make an image before a
// sandbox needs it. A build that was made before is found again, unless Force.
type ImageBuilder interface {
	BuildImage(ctx context.Context, b *Build) (*ImageInfo, error)
}

// ImageInspector is implemented by a Provider that can tell about the images it
// has. An unknown id matches ErrNotFound.
type ImageInspector interface {
	Image(ctx context.Context, id string) (*ImageInfo, error)
}

// ImageMounter is implemented by a Sandbox in which the files of an image can be
// shown in a directory while it runs. The directory is made if need be; what
// was in it is hidden until UnmountImage. id "" shows an empty directory. What
// is written there is lost with the unmounting.
type ImageMounter interface {
	MountImage(ctx context.Context, dir, id string) error
	UnmountImage(ctx context.Context, dir string) error
}

// NetworkSetter is implemented by a Sandbox whose Config.Network can be changed
// while it runs. Connections that are open may go on.
type NetworkSetter interface {
	SetNetwork(ctx context.Context, n Network) error
}

// ReadyWaiter is implemented by a Sandbox that runs Config.Probe. WaitReady
// returns when the probe has succeeded once.
type ReadyWaiter interface {
	WaitReady(ctx context.Context) error
}

// Watcher is implemented by a Sandbox that reports changes of files. Watch
// returns once changes are seen; the sequence ends with ctx's error, when the
// watched directory is gone, or with the sandbox (ErrEnded). Stopping to range
// ends the watch. It may be ranged over once.
type Watcher interface {
	Watch(ctx context.Context, name string, recursive bool) (iter.Seq2[Change, error], error)
}

// Change is something that happened to files.
type Change struct {
	Op ChangeOp
	// Names are the absolute paths it happened to, with links in the watched
	// name resolved: one, or for ChangeRename the old and the new one, of which
	// either is "" when it is not watched.
	Names []string
}

// ChangeOp is what happened.
type ChangeOp int

// What can happen to a file.
const (
	ChangeCreate   ChangeOp = iota + 1 // made
	ChangeModify                       // its content or its metadata
	ChangeRemove                       // removed
	ChangeRename                       // moved
	ChangeAccess                       // opened or read
	ChangeOverflow                     // some changes were lost; Names is empty
)

// Listener is implemented by a Sandbox inside which this process can accept
// connections: the sandbox's processes dial the listener's address, and this
// process serves them, even when the sandbox has no network. address is a
// loopback "IP:port" inside; port 0 picks one.
type Listener interface {
	Listen(ctx context.Context, address string) (net.Listener, error)
}

// Dialer is implemented by a Sandbox whose loopback ports this process can reach.
type Dialer interface {
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// OOMCounter is implemented by a Sandbox of which is known how many of its processes
// were killed since it was made because it had reached its memory limit. Package sandbox
// asks it about what Exit.OOM cannot be told of, a job.
type OOMCounter interface {
	OOMKills(ctx context.Context) (uint64, error)
}

// Exec is a command to start.
type Exec struct {
	Args  []string // Args[0] is looked up in the sandbox's PATH unless it has a slash
	Env   []string // KEY=VALUE, later ones win; added to the sandbox's own
	Dir   string   // absolute; empty is the sandbox's directory
	Stdin bool     // give Process.Stdin; otherwise the command reads /dev/null
	// Stdout and Stderr give Process.Stdout and Process.Stderr; otherwise what
	// is written there is thrown away. Merge sends stderr where stdout goes.
	Stdout, Stderr, Merge bool
	TTY                   *Winsize // run on a terminal of this size; implies Stdin, Stdout and Merge
}

// Winsize is a terminal's size in characters.
type Winsize struct{ Rows, Cols uint16 }

// Process is a started command. Its methods are safe for concurrent use.
type Process interface {
	// Stdin, Stdout and Stderr are this side's ends of the streams that were
	// asked for, nil otherwise. The caller closes them; that ends a Read or
	// Write in progress, and one that comes later matches fs.ErrClosed. Closing
	// an output stream makes the command's next write fail; closing the Stdin
	// of a terminal does not hang it up. Outputs stay readable to their end
	// after Wait has returned.
	Stdin() io.WriteCloser
	Stdout() io.ReadCloser
	Stderr() io.ReadCloser
	// Wait returns how the command ended, at once when it already has, and the
	// same again when called again. When the sandbox ended first the error
	// matches ErrEnded.
	Wait(ctx context.Context) (Exit, error)
	// Signal sends a signal to the command's process group. When the command
	// has ended the error matches os.ErrProcessDone; signal 0 only asks that.
	Signal(ctx context.Context, sig Signal) error
	// Kill ends the command and every process that came from it, those that
	// left its process group or its session too. It is no error when there is
	// nothing left to end.
	Kill(ctx context.Context) error
	// Resize changes the size of the terminal of a command that has one.
	Resize(ctx context.Context, size Winsize) error
}

// Exit is how a command ended.
type Exit struct {
	Code      int    // 0 to 255; -1 when a signal ended it
	Signal    Signal // the signal that ended it, or 0
	OOM       bool   // the sandbox ran into its memory limit while the command ran
	UserTime  time.Duration
	SysTime   time.Duration
	MaxMemory int64 // bytes resident at the most; 0 when not known
}

// FileSystem is the files of a sandbox, as the sandbox's own user may use them.
// Names are absolute, clean, slash-separated paths inside the sandbox; symbolic
// links are resolved inside it and can name nothing outside. /proc, /sys and
// /dev are refused with fs.ErrPermission. Errors match fs.ErrNotExist,
// fs.ErrExist and fs.ErrPermission; one that is not an *fs.PathError is made
// one by the portable type.
type FileSystem interface {
	// OpenFile opens a regular file or a directory; flags are those of package
	// os. Anything else, a FIFO for one, is refused without blocking.
	OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (File, error)
	Stat(ctx context.Context, name string) (fs.FileInfo, error)
	Lstat(ctx context.Context, name string) (fs.FileInfo, error)
	ReadDir(ctx context.Context, name string) ([]fs.FileInfo, error) // sorted by name; not following links
	ReadLink(ctx context.Context, name string) (string, error)
	Mkdir(ctx context.Context, name string, perm fs.FileMode) error
	MkdirAll(ctx context.Context, name string, perm fs.FileMode) error
	Rename(ctx context.Context, from, to string) error
	Remove(ctx context.Context, name string) error
	RemoveAll(ctx context.Context, name string) error
	Symlink(ctx context.Context, target, name string) error
	Chmod(ctx context.Context, name string, mode fs.FileMode) error
	Chtimes(ctx context.Context, name string, atime, mtime time.Time) error
}

// File is an open file of a sandbox.
type File interface {
	fs.File
	io.Writer
	io.Seeker
	io.ReaderAt
}

// Config is what a sandbox is made of, checked and filled in by the portable type.
type Config struct {
	Name        string
	Image       Image
	Env         []string // KEY=VALUE, sorted, each key once
	Secrets     Secrets  // KEY=VALUE; environment of commands, but in no Info, log or file
	SecretNames []string // secrets that the place keeps, by name; environment of commands too
	Dir         string   // absolute; empty means the driver's workspace directory, as a rule /workspace
	CPU         float64  // cores; 0 means the driver's default
	Memory      int64    // bytes; 0 means the driver's default
	Pids        int      // processes and threads; 0 means the driver's default
	Disk        int64    // bytes the sandbox may write; 0 means the driver's default
	Timeout     time.Duration
	IdleTimeout time.Duration // 0: none
	Network     Network
	Ports       []int // ports inside to be reachable from this machine
	Mounts      []Mount
	Tags        map[string]string
	GPU         string // such as "A100" or "T4:2"; empty: none
	Cloud       string // where to run; empty: anywhere
	Regions     []string
	Volumes     []Volume
	Buckets     []BucketMount
	HeaderRules []HeaderRule
	Probe       *Probe // nil: none
}

// Secrets is a list of KEY=VALUE that package fmt does not show.
type Secrets []string

// Format writes "[redacted]" for every verb.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// LogValue logs as "[redacted]".
func (s Secrets) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Image is what a sandbox's file system starts from.
type Image struct {
	Base     string    // empty: the driver's default
	Commands []string  // Dockerfile commands run on top of the base, or of Snapshot
	Registry *Registry // how to log in where Base is; nil: not at all
	Snapshot string    // id of a snapshot or of a built image; excludes Base and Registry
}

// Registry is how to log in at an image registry.
type Registry struct {
	Kind RegistryKind
	// Credentials are KEY=VALUE, with the keys that Kind needs.
	Credentials Secrets
	// SecretName names a secret that the place keeps, instead of Credentials.
	SecretName string
}

// RegistryKind is what is needed to log in.
type RegistryKind int

// The kinds of registries, and the keys of their credentials.
const (
	RegistryPassword RegistryKind = iota // REGISTRY_USERNAME, REGISTRY_PASSWORD
	RegistryECR                          // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION
	RegistryGCP                          // SERVICE_ACCOUNT_JSON
)

// Build is an image to make.
type Build struct {
	Image   Image
	Env     []string // KEY=VALUE for the RUN commands only
	Secrets Secrets  // the same, but in no log, and only as a keyed hash in what the build is found again by
	// Images are ids by the names that FROM and COPY --from use for them.
	Images map[string]string
	Force  bool      // make it again even if it was made before
	Log    io.Writer // what the commands print; may be nil
}

// ImageInfo describes an image.
type ImageInfo struct {
	ID         string   // for Image.Snapshot
	Env        []string // KEY=VALUE
	Dir        string   // where commands start; empty: the driver's default
	User       string
	Entrypoint []string
	Command    []string
}

// Mount shows a file or directory of this machine inside the sandbox.
type Mount struct {
	Source   string // absolute path on this machine
	Target   string // absolute path inside
	Writable bool   // otherwise read-only; a file written inside belongs here to Source's owner
	// Owned makes what belongs to Source's owner here belong to the sandbox's user
	// inside, who can then read what only its owner may. Writable implies it.
	Owned bool
}

// Volume is a named directory that the place keeps.
type Volume struct {
	Name     string
	Target   string // absolute path inside
	SubPath  string // only this directory of it
	ReadOnly bool
}

// BucketMount shows a bucket of an object store as a directory.
type BucketMount struct {
	Bucket     string
	Target     string // absolute path inside
	Prefix     string // only keys below it; ends in "/"
	Endpoint   string // URL of an S3-compatible store; empty: AWS
	SecretName string // a secret that the place keeps, with the credentials
	// Credentials are KEY=VALUE instead of SecretName.
	Credentials   Secrets
	RoleARN       string // an AWS role to assume by OIDC instead
	ReadOnly      bool
	RequesterPays bool
	PathStyle     bool
}

// HeaderRule sets headers of outbound HTTPS requests outside the sandbox, so
// that it can use a credential without seeing it.
type HeaderRule struct {
	Domain     string            // "example.com", "*.example.com" or "*"
	Headers    map[string]string // "$KEY" stands for a value of the secret, "$$" for "$"
	SecretName string            // a secret that the place keeps; empty: none
}

// Probe says how to see that a sandbox is ready: a port inside that accepts
// connections, or a command that exits with 0.
type Probe struct {
	Port     int
	Command  []string
	Interval time.Duration // 0: the driver's default
}

// Network is what a sandbox may reach.
type Network struct {
	Mode    NetworkMode
	Domains []string       // lower case; "*.example.com" matches every name below it
	CIDRs   []netip.Prefix // addresses allowed by number
}

// NetworkMode is how much network a sandbox has.
type NetworkMode int

// The network modes.
const (
	NetworkNone      NetworkMode = iota // loopback only
	NetworkAllowlist                    // Domains and CIDRs only
	NetworkFull                         // every public address
)

// State is where in its life a sandbox is.
type State string

// The states.
const (
	StateRunning State = "running"
	StateEnded   State = "ended"
)

// End is why a sandbox ended.
type End string

// The ways a sandbox ends; the words are those used for runs and events too.
const (
	EndCancelled    End = "cancelled"     // somebody terminated it
	EndIdle         End = "idle"          // nothing ran in it for IdleTimeout
	EndLifetime     End = "lifetime"      // its Timeout was reached
	EndOOM          End = "oom"           // its memory limit ended it
	EndProviderLost End = "provider_lost" // the place lost it
	EndUnknown      End = "unknown"
)

// Info describes a sandbox. It never holds a secret.
type Info struct {
	ID        string
	Name      string
	Driver    string // such as "localbox"
	Dir       string // the working directory commands start in, as they see it
	State     State
	End       End // set once State is StateEnded
	CreatedAt time.Time
	ExpiresAt time.Time // when Timeout ends it
	EndedAt   time.Time // zero while it runs
	Tags      map[string]string
	Ports     map[int]string // port inside to "host:port" on this machine
	Isolated  bool           // false: plain processes (AllowUnisolated)
	// Unenforced names the limits asked for or set by default that this
	// machine cannot enforce, such as "Memory", each with the reason.
	Unenforced map[string]string
}
