package sandboxhttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// Config is what New makes a Handler of. Provider and Auth are required.
type Config struct {
	// Provider makes the sandboxes. The caller closes it, after Shutdown.
	Provider *sandbox.Provider
	// Auth says who asks. There is no default, so that nothing is served to
	// everybody by accident: see Local and BearerToken.
	Auth Auth

	// Sandbox is what every sandbox starts from: mounts, limits, environment.
	// What a request asks for takes the place of its fields; Env, Secrets,
	// Mounts and Ports cannot be changed by a request, only added to. Name and
	// Tags are not used. Nil is the zero Config.
	Sandbox *sandbox.Config
	// Admit, if set, has the last word on a sandbox before it is made. It may
	// change the configuration. An error that matches ErrForbidden is answered
	// 403, one that matches sandbox.ErrInvalid 422, both with its text.
	Admit func(ctx context.Context, p *Principal, c *sandbox.Config) error
	// Claude is what every run starts from: endpoint, permission mode, model.
	// What a request asks for takes the place of its fields; MaxTurns can only
	// be lowered. Nil is the zero Options.
	Claude *claude.Options
	// Volumes opens the volume that a request names. Nil refuses volume_name
	// and s3. Author, Note, Parent, KeepConflict and Progress of its options are set
	// for each request, the others are as it says. An error that matches sandbox.ErrInvalid is answered 422 and one
	// that matches ErrForbidden 403, both with its text.
	Volumes func(ctx context.Context, account string, req VolumeRequest) (*storage.Volume, error)

	// Pool says how sandboxes live: how long, also unused, with what warning, which are kept
	// ready, and where the pool's records are. Servers that share a provider and not their
	// records need a Name each, as Store.ID of package sqlstore: with the same they take over, and end, each
	// other's sandboxes. With Store, a Store of the pool is needed that
	// is kept as long, and shared by as many servers. Provider, Log, Adopt, Fill, Save and
	// Admit are set by New; Configure is called before what New does itself, and Notify after.
	// Where they are not set, SaveTime and FillTime follow Limits.SyncTime, and Keep is an hour. A spare whose
	// Config is nil is what a request gets that asks for nothing else. Nil is the zero Options.
	Pool *pool.Options
	// Limits bound what a client can use. The zero value means the defaults.
	Limits Limits
	// Store keeps the records of sandboxes and runs. With one, runs outlive this
	// server: Shutdown lets go of them, and the next server with this Store goes on
	// with them, also after this one was killed. Nil is a new MemoryStore, and runs
	// end with the server.
	Store Store
	// Logs keeps what Claude wrote in each run, for whoever follows one that has ended,
	// or gets it from another server. Nil keeps it in memory, as far as Limits allow.
	// Several servers with one Store need Logs that they share, since these tell
	// which of them looks after a run.
	Logs runlog.Store
	// Quota says how much an account may use, beside Limits: what goes beyond it is answered
	// 429. It is called for every request that Auth lets in, and again when a sandbox, a
	// run, a save or a restore begins; an error is logged and answered 500. It must be safe
	// for concurrent use. Nil limits nothing.
	Quota func(ctx context.Context, account string) (usage.Quota, error)
	// Usage keeps what goes on and what was used, which GET /usage shows. Several servers
	// need one that they share, as that of package sqlstore, for limits that hold for
	// all of them together. Nil is a new usage.Memory, which begins anew with each process; where
	// Quota is nil too, nothing is counted and GET /usage is a 404.
	Usage usage.Ledger
	// CrossOrigin refuses what browsers send from other sites. Nil is a new
	// http.CrossOriginProtection, which trusts no other origin.
	CrossOrigin *http.CrossOriginProtection
	// Logger gets what went wrong on this side, with the request's id. It
	// never gets a body, a secret or a prompt. Nil is slog.Default().
	Logger *slog.Logger
}

// Limits bound what a client can use. A zero field means its default.
type Limits struct {
	// Body is the largest request body in bytes; 1 MiB.
	Body int64
	// Sandboxes is how many an account may have at once; 20. More are answered
	// 429.
	Sandboxes int
	// Ended is how many sandboxes that have ended are still shown for an
	// account; 100.
	Ended int
	// Runs is how many may go on in one sandbox at once; 4.
	Runs int
	// KeptRuns is how many runs of a sandbox are kept; 200. The oldest that
	// have ended go first.
	KeptRuns int
	// RunTime is how long a run may take; no limit but the sandbox's lifetime.
	RunTime time.Duration
	// RunBytes is how many bytes of a run's events are kept in memory for those who
	// follow; 32 MiB. Who is further behind gets them from Config.Logs, and without
	// that a gap event.
	RunBytes int64
	// EventBytes is how many bytes of events the runs that have ended may keep
	// together; 256 MiB. Beyond that the oldest of them keep their last event only.
	EventBytes int64
	// SyncTime is how long a save of a workspace may take, and a restore; 30 min.
	// Then they are given up and answered 502: a sandbox that was to be deleted is
	// kept, and one that was to be filled is not made.
	SyncTime time.Duration
	// LineBytes is the longest line the CLI may write, with its newline; 128 MiB.
	// A longer one ends the run as agent_error as soon as it is, whether it ends or
	// not. Lines of 70 MB have been seen. A lower MaxLine in Config.Claude holds.
	LineBytes int64
	// Heartbeat is how long a stream is silent before a heartbeat is sent; 10 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take to accept what is written to
	// it; 30 s.
	WriteTimeout time.Duration
	// InterruptGrace is how long Claude may take to stop before it is killed; 10 s.
	// A deletion waits as long again, and a second, for a run that was killed to end.
	InterruptGrace time.Duration
}

func (l *Limits) fill() {
	setDefault(&l.Body, 1<<20)
	setDefault(&l.Sandboxes, 20)
	setDefault(&l.Ended, 100)
	setDefault(&l.Runs, 4)
	setDefault(&l.KeptRuns, 200)
	setDefault(&l.RunBytes, 32<<20)
	setDefault(&l.EventBytes, 256<<20)
	setDefault(&l.SyncTime, 30*time.Minute)
	setDefault(&l.LineBytes, 128<<20)
	setDefault(&l.Heartbeat, 10*time.Second)
	setDefault(&l.WriteTimeout, 30*time.Second)
	setDefault(&l.InterruptGrace, 10*time.Second)
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// VolumeRequest is the volume that a client wants a sandbox's workspace to come
// from and to be saved to.
type VolumeRequest struct {
	// Name is what the client calls it: a word of up to 64 letters, digits, '.',
	// '_' and '-'.
	Name string
	// Key is the account and the name, as a name for storage.NewVolume: two
	// accounts never have the same. Use it for every bucket that accounts share.
	Key string
	// S3 is the client's own bucket; nil for the server's.
	S3 *S3
}

// S3 is a bucket that a client brings. The client chooses the address that this
// server then connects to: check Endpoint before using it, or refuse.
type S3 struct {
	Bucket, Endpoint, Region, Prefix string
	AccessKeyID, SecretAccessKey     sandbox.Secret
}

// Errors to match with errors.Is.
var (
	// ErrUnauthenticated is for Auth to return: no or bad credentials; 401.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrForbidden is for hooks to return: this one may not; 403.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound is what a Store answers for a record it does not have.
	ErrNotFound = errors.New("no such record")
)
