package modalbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// Every fault of the emulator on every call that an operation makes: the result
// is right, or there is an error, in time; nothing is made twice, and no byte is
// lost or repeated.

// faultPatience is how long one operation may take: longer than all retries of
// Modal's client, and far shorter than for ever.
const faultPatience = 90 * time.Second

// unaryFaults can be put on any call.
var unaryFaults = map[string]modaltest.Fault{
	"unavailable once":     {Code: codes.Unavailable},
	"unavailable thrice":   {Code: codes.Unavailable, Times: 3},
	"exhausted once":       {Code: codes.ResourceExhausted},
	"exhausted, try later": {Code: codes.ResourceExhausted, RetryAfter: 50 * time.Millisecond, Times: 2},
	"lost answer":          {LoseAnswer: true},
	"lost answers":         {LoseAnswer: true, Times: 3},
	"delayed":              {Delay: 300 * time.Millisecond},
}

// streamFaults can be put on streams.
var streamFaults = map[string]modaltest.Fault{
	"dropped at once":      {DropAfter: -1},
	"dropped after 1 byte": {DropAfter: 1},
	"dropped after 100 kB": {DropAfter: 100_000},
	"dropped every 100 kB": {DropAfter: 100_000, Times: 5},
	"unavailable once":     {Code: codes.Unavailable},
}

type faultPlace struct {
	srv      *modaltest.Server
	provider *sandbox.Provider
}

func newFaultPlace(t *testing.T) *faultPlace { return openFaultPlace(t, nil) }

func openFaultPlace(t *testing.T, opts *modaltest.Options) *faultPlace {
	srv := modaltest.New(t, opts)
	client, err := srv.Client()
	if err != nil {
		t.Fatal(err)
	}
	provider, err := modalbox.Open(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := provider.Close(); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	return &faultPlace{srv: srv, provider: provider}
}

// alive counts the sandboxes there are.
func (p *faultPlace) alive(t *testing.T) (ids []string) {
	t.Helper()
	for info, err := range p.provider.List(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	return ids
}

// create makes a sandbox without faults.
func (p *faultPlace) create(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	sb, err := p.provider.Create(t.Context(), &sandbox.Config{Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	return sb
}

// each injects every fault on every method in turn.
func (p *faultPlace) each(t *testing.T, faults map[string]modaltest.Fault, methods []string, do func(t *testing.T, ctx context.Context)) {
	for _, method := range methods {
		for name, fault := range faults {
			t.Run(method+"/"+name, func(t *testing.T) {
				fault.Method = method
				remove := p.srv.Inject(fault)
				defer remove()
				ctx, stop := context.WithTimeout(t.Context(), faultPatience)
				defer stop()
				do(t, ctx)
				if ctx.Err() != nil {
					t.Errorf("still at it after %v", faultPatience)
				}
			})
		}
	}
}

// TestTokensExpired is apart from the other faults, as there is no way back
// for a client whose token of the API is refused before it expires: Modal's asks
// for no other until then.
func TestTokensExpired(t *testing.T) {
	expire := func(t *testing.T, method string) (*faultPlace, *sandbox.Sandbox) {
		// The client gets another token of the router if its own is about to
		// expire anyway.
		p := openFaultPlace(t, &modaltest.Options{TokenLife: 25 * time.Second})
		sb := p.create(t)
		p.srv.Inject(modaltest.Fault{Method: method, ExpireTokens: true})
		return p, sb
	}
	t.Run("create", func(t *testing.T) {
		p, sb := expire(t, "SandboxCreateV2")
		if _, err := p.provider.Create(t.Context(), nil); !errors.Is(err, sandbox.ErrUnauthenticated) {
			t.Errorf("got %v, want one that matches ErrUnauthenticated", err)
		}
		if err := sb.Command(t.Context(), "true").Run(); err != nil {
			t.Errorf("what needs the router alone does not go on: %v", err)
		}
	})
	want := scriptOutput()
	for _, method := range []string{"TaskExecStart", "TaskExecStdioRead", "TaskExecWait"} {
		t.Run(method, func(t *testing.T) {
			_, sb := expire(t, method)
			checkStream(t, t.Context(), sb, want)
			checkStream(t, t.Context(), sb, want)
		})
	}
	for _, method := range []string{"TaskExecStdinWriteStream", "TaskExecStdinWrite"} {
		t.Run(method, func(t *testing.T) {
			_, sb := expire(t, method)
			fsys, data := sb.FSAt(t.Context(), "/tmp"), noise(1<<20)
			if err := fsys.WriteFile("f", data, 0o600); err != nil {
				t.Error(err)
			}
			var out bytes.Buffer
			if err := sb.Run(t.Context(), bytes.NewReader(data), &out, "cat"); err != nil || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("cat gave %d bytes back: %v", out.Len(), err)
			}
		})
	}
}

func TestFaultsOnCreate(t *testing.T) {
	p := newFaultPlace(t)
	methods := []string{"SandboxCreateV2", "AppGetOrCreate", "ImageGetOrCreate", "SandboxGetTaskIdV2", "TaskExecStart", "TaskExecWait"}
	p.each(t, unaryFaults, methods, func(t *testing.T, ctx context.Context) {
		sb, err := p.provider.Create(ctx, nil)
		want := 0
		if err == nil {
			want = 1
			defer sb.Close()
		} else {
			t.Logf("refused: %v", err)
		}
		ids := p.alive(t)
		if len(ids) != want {
			t.Errorf("Create answered %v, and there are %d sandboxes", err, len(ids))
		}
		for _, id := range ids {
			if err := p.provider.Terminate(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	})
}

// script prints a megabyte that tells where a byte is missing or there twice,
// says so on stderr, and fails with 7.
const script = `i=0; while [ $i -lt 20000 ]; do echo "line $i of a text that is long enough to be a megabyte"; i=$((i+1)); done; echo done >&2; exit 7`

func scriptOutput() []byte {
	var b bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&b, "line %d of a text that is long enough to be a megabyte\n", i)
	}
	return b.Bytes()
}

func checkStream(t *testing.T, ctx context.Context, sb *sandbox.Sandbox, want []byte) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := sb.Command(ctx, "sh", "-c", script)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	exit, failed := err.(*sandbox.ExitError) // and nothing joined to it
	switch {
	case failed && exit.Code == 7:
		if !bytes.Equal(out.Bytes(), want) || errs.String() != "done\n" {
			t.Errorf("got %d bytes and %q, want the %d written", out.Len(), errs.String(), len(want))
		}
	case err == nil:
		t.Error("a command that failed is said to have succeeded")
	default:
		t.Logf("refused: %v", err)
		if !bytes.HasPrefix(want, out.Bytes()) {
			t.Error("what came before the error is not a beginning of what was written")
		}
	}
}

func TestFaultsOnExec(t *testing.T) {
	p := newFaultPlace(t)
	sb := p.create(t)
	want := scriptOutput()
	p.each(t, unaryFaults, []string{"TaskExecStart", "TaskExecWait"}, func(t *testing.T, ctx context.Context) { checkStream(t, ctx, sb, want) })
	p.each(t, streamFaults, []string{"TaskExecStdioRead"}, func(t *testing.T, ctx context.Context) { checkStream(t, ctx, sb, want) })
}

// TestConnectionsCut breaks every connection again and again while a command prints.
func TestConnectionsCut(t *testing.T) {
	p := newFaultPlace(t)
	sb := p.create(t)
	stop := make(chan struct{})
	cutting := make(chan struct{})
	go func() {
		defer close(cutting)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 5 {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.srv.CutConnections()
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), faultPatience)
	defer cancel()
	checkStream(t, ctx, sb, scriptOutput())
	close(stop)
	<-cutting
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestFaultsOnStdin(t *testing.T) {
	p := newFaultPlace(t)
	sb := p.create(t)
	data := noise(1 << 20)
	faults := map[string]modaltest.Fault{}
	for _, name := range []string{"unavailable once", "unavailable thrice", "lost answer", "lost answers", "delayed"} {
		faults[name] = unaryFaults[name]
	}
	p.each(t, faults, []string{"TaskExecStdinWrite"}, func(t *testing.T, ctx context.Context) {
		var out bytes.Buffer
		cmd := sb.Command(ctx, "cat")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &out
		if err := cmd.Run(); err != nil {
			t.Logf("refused: %v", err)
		} else if !bytes.Equal(out.Bytes(), data) {
			t.Errorf("cat gave %d bytes back, not the %d written", out.Len(), len(data))
		}
	})
}

func TestFaultsOnFileWrite(t *testing.T) {
	p := newFaultPlace(t)
	sb := p.create(t)
	old, data := noise(1000), noise(1<<20)
	write := func(t *testing.T, ctx context.Context) {
		root := sb.FSAt(t.Context(), "/tmp")
		remember := root.WriteFile("f", old, 0o644)
		if remember != nil {
			t.Logf("the fault hit the file before: %v", remember)
		}
		err := sb.FSAt(ctx, "/tmp").WriteFile("f", data, 0o644)
		got, rerr := root.ReadFile("f")
		switch {
		case err != nil:
			t.Logf("refused: %v", err)
		case rerr != nil:
			t.Error(rerr)
		case !bytes.Equal(got, data):
			t.Errorf("the file has %d bytes, not the %d written", len(got), len(data))
		}
	}
	p.each(t, unaryFaults, []string{"TaskExecStart", "TaskExecWait", "TaskExecStdinWrite"}, write)
	p.each(t, streamFaults, []string{"TaskExecStdinWriteStream"}, write)
}

func TestFaultsOnTerminate(t *testing.T) {
	p := newFaultPlace(t)
	faults := maps.Clone(unaryFaults)
	faults["none"] = modaltest.Fault{}
	made := make(chan *sandbox.Sandbox, 2*len(faults)) // before there are faults
	for range cap(made) {
		made <- p.create(t)
	}
	p.each(t, faults, []string{"SandboxTerminateV2", "SandboxWaitV2"}, func(t *testing.T, ctx context.Context) {
		sb := <-made
		if err := sb.Terminate(ctx); err != nil {
			t.Logf("refused: %v", err)
			if err := sb.Terminate(t.Context()); err != nil {
				t.Errorf("again, without a fault: %v", err)
			}
		}
		if ids := p.alive(t); slices.Contains(ids, sb.ID()) {
			t.Error("it is said to be terminated, and lives")
		}
	})
}
