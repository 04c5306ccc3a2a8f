package broker_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
