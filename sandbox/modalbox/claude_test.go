package modalbox_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// TestClaude runs the real CLI in a sandbox without network. The model's API is
// a handler of this process, and the CLI reaches it all the same.
func TestClaude(t *testing.T) {
	cli := clitest.CLI(t)
	client, err := modaltest.New(t, &modaltest.Options{Mounts: cli.Mounts()}).Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p, err := modalbox.Open(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sb, err := p.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	st, err := claude.Query(t.Context(), sb, "write hello.txt: from afar", &claude.Options{
		Endpoint:       claude.Endpoint{Handler: claudetest.NewHandler(claudetest.Prompted(), nil)},
		PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var said strings.Builder
	for words, err := range st.Text() {
		if err != nil {
			t.Fatal(err)
		}
		said.WriteString(words)
	}
	if res, err := st.Result(); err != nil || res.Turns < 2 {
		t.Fatalf("got %+v, %v; it said %q", res, err, said.String())
	}
	if got, err := sb.FS(t.Context()).ReadFile("hello.txt"); err != nil || strings.TrimSpace(string(got)) != "from afar" {
		t.Errorf("hello.txt is %q, %v", got, err)
	}
	if err := sb.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
}

// The test binary starts a run in this sandbox, and prints a dot for each line of it
// until it is killed.
const runBoxEnv = "MODALBOX_TEST_RUN_BOX"

func init() {
	if id := os.Getenv(runBoxEnv); id != "" && len(os.Args) == 1 {
		fmt.Fprintln(os.Stderr, "run:", startRun(context.Background(), id))
		os.Exit(1)
	}
}

// handedOver are the options of a run whose second word comes from another process.
func handedOver(first bool) *claude.Options {
	return &claude.Options{PermissionMode: claude.PermissionBypass, Endpoint: claude.Endpoint{Handler: claudetest.NewHandler(
		func(w *claudetest.Reply, r *claudetest.Request) {
			if len(r.ToolResults()) == 0 {
				w.Tool("Bash", map[string]any{"command": "echo once >>done", "description": "do it"})
				return
			}
			if first {
				<-r.Context().Done()
				return
			}
			w.Text("done")
		}, nil)}}
}

func startRun(ctx context.Context, id string) error {
	client, err := modal.NewClient()
	if err != nil {
		return err
	}
	p, err := modalbox.Open(client, nil)
	if err != nil {
		return err
	}
	sb, err := p.Attach(ctx, id)
	if err != nil {
		return err
	}
	st, err := claude.NewClient(sb, handedOver(true)).Start(ctx, "run", "x")
	if err != nil {
		return err
	}
	for _, err := range st.Lines() {
		if err != nil {
			return err
		}
		fmt.Print(".")
	}
	_, err = st.Result()
	return err
}

// TestClaudeIsTakenOver kills the process that follows a run. The address at which the
// CLI looks for the model's API is free again when what served it inside has missed its
// process for a minute.
func TestClaudeIsTakenOver(t *testing.T) {
	cli := clitest.CLI(t)
	server := modaltest.New(t, &modaltest.Options{Mounts: cli.Mounts()})
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sb, err := open(t, client).Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), runBoxEnv+"="+sb.ID(), "MODAL_SERVER_URL="+server.URL(), "MODAL_TOKEN_ID=ak-test",
		"MODAL_TOKEN_SECRET=as-test", "MODAL_CONFIG_PATH="+filepath.Join(t.TempDir(), "none"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for range 3 { // what it was told, that it uses the tool, and the tool's result
		if _, err := lines.ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	st, err := claude.NewClient(sb, handedOver(false)).Adopt(t.Context(), "run")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if res, err := st.Result(); err != nil || res.Turns != 2 {
		t.Errorf("the result is %+v, %v", res, err)
	}
	if got, err := sb.FS(t.Context()).ReadFile("done"); err != nil || string(got) != "once\n" {
		t.Errorf("done: %q, %v", got, err)
	}
	if err := sb.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
}
