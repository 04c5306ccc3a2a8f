package sandboxhttp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// Handler serves sandboxes and runs. New makes one. It works in the background
// between requests: Shutdown ends it.
type Handler struct {
	config Config
	limits Limits
	log    *slog.Logger
	store  Store
	timing eventlog.Timing
	mux    *http.ServeMux
	keys   *keys
	ledger usage.Ledger // nil: nothing is counted
	rate   usage.Rate

	pool  *pool.Pool
	spans spans
	hooks struct { // those of Config.Pool
		configure func(context.Context, *pool.Record, *sandbox.Config) error
		notify    func(context.Context, pool.Event)
	}

	durable bool // records outlive this process, so that runs do

	ctx    context.Context // of all work that no connection owns
	cancel context.CancelCauseFunc
	runs   context.Context // of looking after runs; ends before ctx where they go on without
	leave  context.CancelFunc

	mu      sync.Mutex
	closing bool
	work    sync.WaitGroup // what Shutdown waits for
	boxes   map[string]*box
	swept   bool            // sandboxes without a record were looked for
	known   map[string]bool // accounts whose sandboxes were looked at

	naming  sync.Mutex // one creation at a time checks the name and the limit
	records sync.Mutex // one change of a sandbox's record at a time

	events eventBudget
}

// errShutdown is why work was cancelled when Shutdown's context ended.
var errShutdown = &reason{text: "the server is shutting down", is: context.Canceled, end: claude.EndCancelled}

// New returns a Handler for the configuration, which it copies. With a Store it begins
// to look for runs that an earlier server has left. The caller ends it with Shutdown.
func New(config *Config) (*Handler, error) {
	switch {
	case config == nil || config.Provider == nil:
		return nil, errors.New("sandboxhttp: Config.Provider is needed")
	case config.Auth == nil:
		return nil, errors.New("sandboxhttp: Config.Auth is needed; Local and BearerToken are two")
	}
	h := &Handler{
		config: *config, limits: config.Limits, log: config.Logger, store: config.Store,
		keys: newKeys(), boxes: map[string]*box{}, known: map[string]bool{},
	}
	h.limits.fill()
	if h.ledger = config.Usage; h.ledger == nil && config.Quota != nil {
		h.ledger = new(usage.Memory)
	}
	h.events.limit = h.limits.EventBytes
	h.timing = eventlog.Timing{Heartbeat: h.limits.Heartbeat, WriteTimeout: h.limits.WriteTimeout}
	if h.log == nil {
		h.log = slog.Default()
	}
	if h.durable = h.store != nil; !h.durable {
		h.store = new(MemoryStore)
	}
	if h.config.CrossOrigin == nil {
		h.config.CrossOrigin = http.NewCrossOriginProtection()
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	h.runs, h.leave = context.WithCancel(context.Background())
	h.mux = h.routes()
	if err := h.openPool(); err != nil {
		return nil, err
	}
	if h.durable {
		h.work.Go(h.watchRuns)
	}
	return h, nil
}

// endpoint answers a request or returns why it cannot. After it has begun to
// answer it returns nil.
type endpoint func(w http.ResponseWriter, r *http.Request, p *Principal) error

func (h *Handler) routes() *http.ServeMux {
	mux := http.NewServeMux()
	route := func(pattern string, methods map[string]endpoint) {
		mux.Handle(pattern, h.methods(methods))
	}
	route("/sandbox", map[string]endpoint{http.MethodPost: h.postSandbox, http.MethodGet: h.listSandboxes})
	route("/sandbox/{id}", map[string]endpoint{http.MethodGet: h.getSandbox, http.MethodDelete: h.deleteSandbox})
	route("/sandbox/{id}/claude", map[string]endpoint{http.MethodPost: h.postRun})
	route("/sandbox/{id}/runs", map[string]endpoint{http.MethodGet: h.listRuns})
	route("/sandbox/{id}/runs/{run}", map[string]endpoint{http.MethodGet: h.getRun})
	route("/sandbox/{id}/runs/{run}/events", map[string]endpoint{http.MethodGet: h.followRun})
	route("/sandbox/{id}/runs/{run}/answer", map[string]endpoint{http.MethodPost: h.answerRun})
	route("/sandbox/{id}/runs/{run}/interrupt", map[string]endpoint{http.MethodPost: h.interruptRun})
	route("/sandbox/{id}/versions", map[string]endpoint{http.MethodGet: h.listVersions})
	route("/sandbox/{id}/sync", map[string]endpoint{http.MethodPost: h.postSync})
	route("/sandbox/{id}/restore", map[string]endpoint{http.MethodPost: h.postRestore})
	route("/usage", map[string]endpoint{http.MethodGet: h.getUsage})
	route("/", nil)
	mux.HandleFunc("/healthz", h.healthz)
	mux.HandleFunc("/readyz", h.readyz)
	return mux
}

// methods picks the endpoint for a request's method, once it is known who asks.
func (h *Handler) methods(endpoints map[string]endpoint) http.Handler {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if endpoints[m] != nil {
			allow = append(allow, m)
		}
	}
	serve := func(w http.ResponseWriter, r *http.Request) error {
		if err := h.config.CrossOrigin.Check(r); err != nil {
			return newProblem(http.StatusForbidden, codeCrossOrigin, "a page of another site may not ask for this")
		}
		p, err := h.authenticate(r)
		if err != nil {
			return err
		}
		if err := h.admit(r.Context(), p); err != nil {
			return err
		}
		if endpoints == nil {
			return notFound()
		}
		fn := endpoints[r.Method]
		if fn == nil {
			problem := newProblem(http.StatusMethodNotAllowed, codeMethodNotAllowed, "this path does not take "+clip(r.Method))
			problem.allow = allow
			return problem
		}
		return fn(w, r, p)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			h.writeProblem(w, r, err)
		}
	})
}

// ServeHTTP implements http.Handler. Mount it below a prefix with http.StripPrefix.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if !requestIDRE.MatchString(id) {
		id = strings.ToLower(rand.Text())
	}
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	header := w.Header()
	header.Set("X-Request-Id", id)
	header.Set("X-Content-Type-Options", "nosniff")
	tracked := &trackedWriter{ResponseWriter: w}
	defer h.recovered(tracked, r)
	if path.Clean(r.URL.Path) != r.URL.Path {
		// The mux would redirect, to a place that is wrong below a prefix.
		u := *r.URL
		u.Path, u.RawPath = "/", ""
		r.URL = &u
	}
	h.mux.ServeHTTP(tracked, r)
}

// recovered answers a request whose handling panicked.
func (h *Handler) recovered(w *trackedWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	h.log.ErrorContext(r.Context(), "panic while serving a request", "request_id", requestID(r.Context()),
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler) // cut it off: half an answer must not look whole
	}
	h.writeProblem(w, r, newProblem(http.StatusInternalServerError, codeInternal,
		"something went wrong on the server; its log has the request id"))
}

// trackedWriter knows whether an answer has begun.
type trackedWriter struct {
	http.ResponseWriter
	begun bool
}

func (t *trackedWriter) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *trackedWriter) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (t *trackedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

type requestIDKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// requestIDRE matches the ids of a proxy that can be taken over into logs.
var requestIDRE = regexp.MustCompile(`^[0-9A-Za-z._-]{1,64}$`)

func (h *Handler) healthz(w http.ResponseWriter, r *http.Request) {
	h.writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	closing := h.closing
	h.mu.Unlock()
	if closing {
		h.writeProblem(w, r, shuttingDown())
		return
	}
	h.writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

// send answers with a value as JSON.
func (h *Handler) send(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h.writeJSON(w, status, data)
	return nil
}

func (h *Handler) writeJSON(w http.ResponseWriter, status int, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	h.extendWrite(w)
	w.WriteHeader(status)
	// data may be an answer that is kept. An error is a client that is gone:
	// nobody is left to tell.
	_, _ = w.Write(append(slices.Clip(data), '\n'))
}

// extendWrite gives the client time from now on: the work before may have taken
// longer than the server's WriteTimeout.
func (h *Handler) extendWrite(w http.ResponseWriter) {
	// Not every ResponseWriter can; then the server's own limit holds.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.limits.WriteTimeout))
}
