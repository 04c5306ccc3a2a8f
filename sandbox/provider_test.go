package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestCreateLeavesNothingWhenItFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &fakeSandbox{infoErr: errOnPurpose}
	p := sandbox.NewProvider(&fakeProvider{create: func(*driver.Config) (driver.Sandbox, error) { cancel(); return d, nil }})
	_, err := p.Create(ctx, nil)
	if !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v", err)
	}
	if d.ends != 1 || d.closes != 1 || d.terminated != nil {
		t.Errorf("terminated %d times (context: %v), closed %d times; want once each, not cancelled", d.ends, d.terminated, d.closes)
	}
}

func TestAttachLetsGoWhenItFails(t *testing.T) {
	d := &fakeSandbox{infoErr: errOnPurpose}
	p := sandbox.NewProvider(&fakeProvider{create: func(*driver.Config) (driver.Sandbox, error) { return d, nil }})
	if _, err := p.Attach(t.Context(), "sb-1"); !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v", err)
	}
	if d.ends != 0 || d.closes != 1 {
		t.Errorf("terminated %d times, closed %d times; want only closed", d.ends, d.closes)
	}
}

func TestAttachName(t *testing.T) {
	p := sandbox.NewProvider(&fakeProvider{create: func(*driver.Config) (driver.Sandbox, error) { return &fakeSandbox{}, nil }})
	sb, err := p.AttachName(t.Context(), "known")
	if err != nil || sb.ID() != "sb-1" || sb.Dir() != "/workspace" {
		t.Errorf("got %v, %v", sb, err)
	}
	_, err = p.AttachName(t.Context(), "unknown")
	if !errors.Is(err, sandbox.ErrNotFound) || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("got %v", err)
	}
}

func TestList(t *testing.T) {
	d := &fakeProvider{infos: []*driver.Info{{ID: "a"}, {ID: "b"}}}
	p := sandbox.NewProvider(d)
	tags := map[string]string{"k": "v"}
	list := p.List(t.Context(), &sandbox.ListOptions{Tags: tags, Ended: true})
	tags["k"] = "changed"
	for range 2 {
		var ids []string
		var last error
		for info, err := range list {
			if err != nil {
				last = err
				continue
			}
			ids = append(ids, info.ID)
		}
		if strings.Join(ids, "") != "ab" || !errors.Is(last, sandbox.ErrUnavailable) || !strings.Contains(fmt.Sprint(last), "list") {
			t.Errorf("got %v, then %v", ids, last)
		}
	}
	for range list {
		break // yields no more, or panics
	}
	if d.filter.Tags["k"] != "v" || !d.filter.Ended {
		t.Errorf("the driver was asked for %+v", d.filter)
	}
}

func TestWhatADriverLacks(t *testing.T) {
	sb, _ := fake(t, untilKilled)
	p := sandbox.NewProvider(&fakeProvider{})
	_, snapshotErr := sb.Snapshot(t.Context())
	_, listenErr := sb.Listen(t.Context(), "127.0.0.1:0")
	_, dialErr := sb.Dial(t.Context(), "127.0.0.1:1")
	for what, err := range map[string]error{
		"Snapshot": snapshotErr, "Listen": listenErr, "Dial": dialErr, "DeleteSnapshot": p.DeleteSnapshot(t.Context(), "x"),
		"a setting": fmt.Errorf("%w", &driver.UnsupportedError{Setting: "Memory"}),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: got %v, want errors.ErrUnsupported", what, err)
		}
	}
}

func TestErrorsCarryOperationAndID(t *testing.T) {
	sb, d := fake(t, untilKilled)
	d.startErr = &driver.UnsupportedError{Setting: "TTY", Reason: "no terminals here"}
	err := sb.Command(t.Context(), "prog", "with-a-password").Run()
	want := "sandbox sb-1: exec prog: setting TTY is not supported by this driver: no terminals here"
	if err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if se, ok := errors.AsType[*sandbox.Error](err); !ok || se.ID != "sb-1" || se.Op != "exec prog" || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %#v", err)
	}
	// An error that happens to hold another sandbox's is wrapped all the same.
	d.startErr = fmt.Errorf("by way of: %w", &sandbox.Error{Op: "dial", ID: "sb-2", Err: errOnPurpose})
	err = sb.Command(t.Context(), "prog").Run()
	if se, ok := errors.AsType[*sandbox.Error](err); !ok || se.ID != "sb-1" || !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v", err)
	}
}

func TestExitErrorText(t *testing.T) {
	for want, e := range map[string]*sandbox.ExitError{
		"exit status 3":     {Exit: sandbox.Exit{Code: 3}},
		"go: exit status 3": {Exit: sandbox.Exit{Code: 3}, Args: []string{"go", "secret"}},
		"x: signal: killed": {Exit: sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL}, Args: []string{"x"}},
		"signal: signal 40": {Exit: sandbox.Exit{Code: -1, Signal: 40}},
		"signal: killed (the sandbox reached its memory limit)": {Exit: sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL, OOM: true}},
		"exit status 1: context canceled":                       {Exit: sandbox.Exit{Code: 1}, Cause: context.Canceled},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
