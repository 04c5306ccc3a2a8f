package sandboxhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// The codes of problems: clients tell them apart by these words.
const (
	codeInvalidRequest       = "invalid_request"
	codeUnauthenticated      = "unauthenticated"
	codeForbidden            = "forbidden"
	codeCrossOrigin          = "cross_origin"
	codeNotFound             = "not_found"
	codeMethodNotAllowed     = "method_not_allowed"
	codeNameInUse            = "name_in_use"
	codeRunInProgress        = "run_in_progress"
	codeIdempotencyInFlight  = "idempotency_in_flight"
	codeSandboxEnded         = "sandbox_ended"
	codeNoVolume             = "no_volume"
	codeVolumeBusy           = "volume_busy"
	codeVersionConflict      = "version_conflict"
	codeBodyTooLarge         = "body_too_large"
	codeUnsupportedMediaType = "unsupported_media_type"
	codeValidationFailed     = "validation_failed"
	codeUnsupportedSetting   = "unsupported_setting"
	codeIdempotencyMismatch  = "idempotency_mismatch"
	codeExhausted            = "exhausted"
	codeInternal             = "internal"
	codeSyncFailed           = "sync_failed"
	codeRestoreFailed        = "restore_failed"
	codeVolumeFailed         = "volume_failed"
	codeProviderFailed       = "provider_failed"
	codeShuttingDown         = "shutting_down"
	codeAnswered             = "answered"
	codeRunEnded             = "run_ended"
	codeElsewhere            = "elsewhere"
)

// retryAfter is what 429 and 503 ask a client to wait, where no better time is known.
const retryAfter = 5 * time.Second

// problem is an error as RFC 9457 writes it, and a Go error on the way there.
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	RequestID string       `json:"request_id"`
	Retryable bool         `json:"retryable"`
	Errors    []fieldError `json:"errors,omitempty"`

	// Of exhausted: which limit of the account's quota it is, if it is one.
	Limit usage.Limit `json:"limit,omitempty"`
	// Of version_conflict: the newest version's id, and the one that was kept beside it.
	Head    string      `json:"head,omitempty"`
	Version *versionOut `json:"version,omitempty"`

	cause error         // logged, not sent
	allow []string      // for 405
	after time.Duration // for Retry-After; zero is retryAfter
}

// fieldError is what is wrong with one field of a body.
type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// newProblem makes one that, where it is this side's, may be gone the next time: a database
// that starts again is an internal error.
func newProblem(status int, code, detail string) *problem {
	return &problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail,
		Retryable: status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || code == codeIdempotencyInFlight || code == codeRunInProgress || code == codeVolumeBusy,
	}
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

// Unwrap gives what was behind it.
func (p *problem) Unwrap() error { return p.cause }

// because keeps an error for the log.
func (p *problem) because(err error) *problem {
	p.cause = err
	return p
}

func (p *problem) field(name, detail string) *problem {
	p.Errors = append(p.Errors, fieldError{name, detail})
	return p
}

func notFound() *problem {
	return newProblem(http.StatusNotFound, codeNotFound, "there is nothing of that name here")
}

func sandboxEnded() *problem {
	return newProblem(http.StatusConflict, codeSandboxEnded, "the sandbox has ended, or is being deleted; make another")
}

func shuttingDown() *problem {
	return newProblem(http.StatusServiceUnavailable, codeShuttingDown, "the server is ending; ask again in a moment")
}

// asProblem gives every error a form to send. What it does not know is an
// internal one, whose text only the log gets.
func asProblem(err error) *problem {
	var p *problem
	var exceeded *usage.ExceededError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &exceeded):
		return exceededProblem(exceeded)
	case errors.Is(err, ErrNotFound):
		return notFound()
	}
	return newProblem(http.StatusInternalServerError, codeInternal,
		"something went wrong on the server; its log has the request id").because(err)
}

// providerProblem tells apart what a provider answers. The texts of sentinels are
// for clients; that of any other error is for the log.
func providerProblem(err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errors.ErrUnsupported):
		return unsupportedProblem(err)
	case errors.Is(err, sandbox.ErrInvalid):
		return invalidProblem(err)
	case errors.Is(err, sandbox.ErrEnded):
		return sandboxEnded().because(err)
	case errors.Is(err, sandbox.ErrNameInUse):
		return newProblem(http.StatusConflict, codeNameInUse, "the name is in use").because(err)
	case errors.Is(err, sandbox.ErrExhausted):
		return newProblem(http.StatusTooManyRequests, codeExhausted, "there are no resources for another sandbox; delete one, or ask again later").because(err)
	case errors.Is(err, sandbox.ErrNoIsolation):
		return newProblem(http.StatusBadGateway, codeProviderFailed, rootText(err)).because(err)
	case errors.Is(err, sandbox.ErrUnavailable):
		return newProblem(http.StatusBadGateway, codeProviderFailed, "the place where sandboxes run did not answer").because(err)
	case errors.Is(err, errShutdown), errors.Is(err, context.Canceled), errors.Is(err, pool.ErrClosed):
		return shuttingDown().because(err)
	}
	return newProblem(http.StatusBadGateway, codeProviderFailed,
		"the place where sandboxes run failed; the server's log has the request id").because(err)
}

// rootText is the text of a sandbox's error without the id, which is not the
// one that clients know.
func rootText(err error) string {
	var e *sandbox.Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// writeProblem sends an error, and logs those that are this side's.
func (h *Handler) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := h.report(r.Context(), err)
	header := w.Header()
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		if wait := p.wait(); wait > 0 {
			header.Set("Retry-After", strconv.FormatInt(wait, 10))
		}
	}
	if p.Status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", `Bearer realm="vivarium"`)
	}
	if len(p.allow) > 0 {
		header.Set("Allow", strings.Join(p.allow, ", "))
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	h.extendWrite(w)
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.encode()) // the client is gone; nobody is left to tell
}

// report gives an error the request's id, and logs it if it is this side's. One
// that was reported stays as it is.
func (h *Handler) report(ctx context.Context, err error) *problem {
	sent := *asProblem(err)
	if sent.RequestID != "" {
		return &sent
	}
	sent.RequestID = requestID(ctx)
	if sent.Status >= http.StatusInternalServerError && sent.Code != codeShuttingDown {
		h.log.ErrorContext(ctx, "request failed", "request_id", sent.RequestID, "code", sent.Code, "error", fmt.Sprint(sent.cause))
	}
	return &sent
}

func (p *problem) encode() []byte { return append(mustJSON(p), '\n') }

// mustJSON marshals what always can be: strings, numbers, booleans and times.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
