package broker_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
)

// TestRealCLI runs the real CLI through a broker to a scripted model. The CLI
// looks for the key where what runs inside could: its environment and files.
func TestRealCLI(t *testing.T) {
	for name, test := range map[string]struct {
		key      broker.Key
		variable string
	}{
		"api key":            {broker.APIKey(theKey), "ANTHROPIC_API_KEY"},
		"oauth, as a bearer": {broker.BearerToken(theKey), "ANTHROPIC_AUTH_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			cli := clitest.CLI(t)
			home, dir := t.TempDir(), t.TempDir()
			model := claudetest.Start(t, claudetest.Sequence(
				claudetest.Tool("Bash", map[string]any{"command": "env; cat /proc/self/environ /proc/$PPID/environ; echo; cat ~/.claude*.json"}),
				claudetest.Join(claudetest.Text("all "), claudetest.Text("done")),
			))
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			b, err := broker.New(&broker.Options{Upstream: model.URL, Key: test.key, Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			front := httptest.NewServer(b)
			t.Cleanup(front.Close)
			token := b.NewToken(nil)
			cmd := exec.CommandContext(t.Context(), cli.Path, "-p", "go", "--output-format=stream-json", "--verbose", "--include-partial-messages", "--dangerously-skip-permissions")
			cmd.Dir = dir
			cmd.Env = []string{
				"HOME=" + home, "PATH=" + os.Getenv("PATH"), "IS_SANDBOX=1", "CLAUDE_CODE_MAX_RETRIES=0",
				"ANTHROPIC_BASE_URL=" + front.URL, test.variable + "=" + token.Value(),
			}
			out, err := cmd.Output()
			if err != nil || !bytes.Contains(out, []byte(`"result":"all done"`)) {
				t.Fatalf("got %v:\n%s", err, out)
			}
			wantNowhere(t, out, home, dir)
			for _, r := range model.Requests() {
				if r.Key() != theKey || strings.Contains(strings.Join(r.Header.Values("Authorization"), "")+r.Header.Get("X-Api-Key"), token.Value()) {
					t.Errorf("%s %s came with %q", r.Method, r.URL, r.Key())
				}
			}
			if len(model.Requests(claudetest.Main)) != 2 {
				t.Errorf("the model saw %d turns, want 2", len(model.Requests(claudetest.Main)))
			}
		})
	}
}

// TestRealWebSearch lets the real CLI search the web, which it has the API do.
func TestRealWebSearch(t *testing.T) {
	for name, allowed := range map[string]bool{"refused": false, "allowed": true} {
		t.Run(name, func(t *testing.T) {
			cli := clitest.CLI(t)
			var searches atomic.Int64
			model := claudetest.Start(t, func(w *claudetest.Reply, r *claudetest.Request) {
				switch {
				case bytes.Contains(r.Body, []byte(`"type":"web_search_2`)):
					searches.Add(1)
					w.Text("found")
				case len(r.ToolResults()) == 0:
					w.Tool("WebSearch", map[string]any{"query": "the weather"})
				default:
					w.Text("answered: " + r.ToolResults()[0].Result)
				}
			})
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			b, err := broker.New(&broker.Options{Upstream: model.URL, Key: broker.APIKey(theKey), Transport: transport, AllowServerTools: allowed})
			if err != nil {
				t.Fatal(err)
			}
			front := httptest.NewServer(b)
			t.Cleanup(front.Close)
			cmd := exec.CommandContext(t.Context(), cli.Path, "-p", "go", "--dangerously-skip-permissions")
			cmd.Dir = t.TempDir()
			cmd.Env = []string{
				"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "IS_SANDBOX=1", "CLAUDE_CODE_MAX_RETRIES=0",
				"ANTHROPIC_BASE_URL=" + front.URL, "ANTHROPIC_API_KEY=" + b.NewToken(nil).Value(),
			}
			out, err := cmd.Output()
			if err != nil || !bytes.Contains(out, []byte("answered: ")) || bytes.Contains(out, []byte("AllowServerTools")) == allowed {
				t.Errorf("got %v:\n%s", err, out)
			}
			if n := searches.Load(); (n > 0) != allowed {
				t.Errorf("the API was asked to search %d times", n)
			}
		})
	}
}

func wantNowhere(t *testing.T, out []byte, dirs ...string) {
	t.Helper()
	if bytes.Contains(out, []byte(theKey)) {
		t.Error("the key is in the output")
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(theKey)) {
				t.Errorf("the key is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
