package modalbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestErrorKinds(t *testing.T) {
	for _, c := range []struct {
		err, want error
	}{
		{modal.NotFoundError{Exception: "x"}, driver.ErrNotFound},
		{modal.AlreadyExistsError{Exception: "x"}, driver.ErrNameInUse},
		{modal.ConflictError{Exception: "x"}, driver.ErrEnded},
		{modal.InvalidError{Exception: "x"}, driver.ErrInvalid},
		{modal.RemoteError{Exception: "x"}, driver.ErrInvalid},
		{modal.ResourceExhaustedError{Exception: "x"}, driver.ErrExhausted},
		{modal.InternalFailure{Exception: "x"}, driver.ErrUnavailable},
		{modal.TimeoutError{Exception: "x"}, context.DeadlineExceeded},
		{modal.SandboxTimeoutError{Exception: "x"}, context.DeadlineExceeded},
		{modal.ExecTimeoutError{Exception: "x"}, context.DeadlineExceeded},
		{modal.ClientClosedError{Exception: "x"}, os.ErrClosed},
		{status.Error(codes.NotFound, "x"), driver.ErrNotFound},
		{status.Error(codes.AlreadyExists, "x"), driver.ErrNameInUse},
		{status.Error(codes.ResourceExhausted, "x"), driver.ErrExhausted},
		{status.Error(codes.Unauthenticated, "x"), driver.ErrUnauthenticated},
		{status.Error(codes.PermissionDenied, "x"), driver.ErrUnauthenticated},
		{status.Error(codes.InvalidArgument, "x"), driver.ErrInvalid},
		{status.Error(codes.Unavailable, "x"), driver.ErrUnavailable},
		{status.Error(codes.Internal, "x"), driver.ErrUnavailable},
		{status.Error(codes.DeadlineExceeded, "x"), context.DeadlineExceeded},
		{status.Error(codes.Unimplemented, "x"), errors.ErrUnsupported},
		{fmt.Errorf("failed to get auth token: %w", status.Error(codes.Unauthenticated, "x")), driver.ErrUnauthenticated},
	} {
		got := wrap("try", c.err)
		if !errors.Is(got, c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: does not match %v and itself", got, c.want)
		}
		e, ok := errors.AsType[*Error](got)
		if !ok || e.Op != "try" || !strings.Contains(got.Error(), "modal: try: ") {
			t.Errorf("%v: is a %T", got, got)
		}
		if _, has := remedies[c.want]; ok && has && (e.Remedy == "" || !strings.Contains(got.Error(), e.Remedy)) {
			t.Errorf("%v: says nothing to do about it", got)
		}
		if again := wrap("again", got); again != got {
			t.Errorf("wrapped twice: %v", again)
		}
	}
	if wrap("try", nil) != nil || kindOf(errors.New("x")) != nil {
		t.Error("no error, or one of no kind, is one")
	}
}

func TestRedact(t *testing.T) {
	secrets := []driver.Secrets{{"A=hidden-value", "B=ab"}, {"C=other-one"}}
	err := wrap("build", modal.RemoteError{Exception: "it said hidden-value and other-one, ab"})
	got := redact(err, secrets...)
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(text, "hidden-value") || strings.Contains(text, "other-one") {
		t.Errorf("shown: %s", text)
	}
	if !errors.Is(got, driver.ErrInvalid) || !strings.Contains(got.Error(), ", ab") {
		t.Errorf("got %v", got)
	}
	if _, ok := errors.AsType[modal.RemoteError](got); ok {
		t.Error("the client's error, with its text, can be reached")
	}
	plain := wrap("build", modal.RemoteError{Exception: "nothing"})
	if redact(plain, secrets...) != plain || redact(nil, secrets...) != nil {
		t.Error("an error without a secret is another now")
	}
}

func TestFileErrors(t *testing.T) {
	for line, want := range map[string]string{
		"mkdir: cannot create directory '/a': File exists":          "file already exists",
		"mv: cannot stat '/File exists': No such file or directory": "file does not exist",
		"cat: write error: No space left on device":                 "no space left on device",
		"rm: can't remove '/x': Read-only file system":              "read-only file system",
		"stat: cannot stat '/l': Too many levels of symbolic links": "too many levels of symbolic links",
		"sh: 3: cannot create /etc/x: Permission denied":            "permission denied",
		"sh: 3: cannot create /no/x: Directory nonexistent":         "file does not exist",
		"/bin/sh: can't create /no/x: nonexistent directory":        "file does not exist",
		"something else": "something else",
	} {
		if got := parseError(line); got.Error() != want {
			t.Errorf("%q: %v, want %s", line, got, want)
		}
	}
}

func TestRecord(t *testing.T) {
	for _, tags := range []map[string]string{nil, {}, {tagLife: "x"}, {tagLife: "1 2"}, {tagPorts: "tcp"}, {tagPorts: "tls a b"}, {tagDir: ""}} {
		if r := parseRecord(tags); r == nil || len(r.ports) > 0 {
			t.Errorf("%v: %+v", tags, r)
		}
	}
	r := &record{name: "n", dir: "/d", timeout: defaultTimeout, idle: 1e9, ports: []int{80, 443}, encrypted: true, probe: true, tags: map[string]string{"a": "b"}}
	got := parseRecord(r.all("intent"))
	if fmt.Sprint(got.name, got.dir, got.timeout, got.idle, got.ports, got.encrypted, got.probe, got.tags) !=
		fmt.Sprint(r.name, r.dir, r.timeout, r.idle, r.ports, r.encrypted, r.probe, r.tags) {
		t.Errorf("got %+v, want %+v", got, r)
	}
}
