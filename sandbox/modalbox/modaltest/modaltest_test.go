package modaltest_test

import (
	"bytes"
	"io"
	"strconv"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// create makes a sandbox with no more than a command.
func create(t *testing.T, client *modal.Client, params *modal.SandboxCreateParams) *modal.Sandbox {
	t.Helper()
	app, err := client.Apps.FromName(t.Context(), "test", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(t.Context(), app, client.Images.FromRegistry("debian:12", nil), params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Detach() })
	return sb
}

func TestNewClient(t *testing.T) {
	t.Setenv("MODAL_PROFILE", "somebody-elses")
	t.Setenv("MODAL_TOKEN_ID", "of somebody else")
	sb := create(t, modaltest.NewClient(t), &modal.SandboxCreateParams{Command: []string{"echo", "hello"}})
	out, err := io.ReadAll(sb.Stdout)
	if err != nil || string(out) != "hello\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if code, err := sb.Wait(t.Context(), nil); code != 0 || err != nil {
		t.Errorf("wait: %d, %v", code, err)
	}
}

func TestClientElsewhere(t *testing.T) {
	s := modaltest.New(t, nil)
	t.Setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
	if _, err := s.Client(); err == nil {
		t.Error("a client that would go elsewhere was handed out")
	}
}

func TestDroppedStream(t *testing.T) {
	s := modaltest.New(t, nil)
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sb := create(t, client, &modal.SandboxCreateParams{Timeout: time.Minute})
	s.Inject(modaltest.Fault{Method: "TaskExecStdioRead", DropAfter: 100_000, Times: 3})
	p, err := sb.Exec(t.Context(), []string{"seq", "200000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 200000 {
		want.WriteString(strconv.Itoa(i+1) + "\n")
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes came, want %d the same", len(got), want.Len())
	}
}
