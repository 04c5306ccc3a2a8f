package claude_test

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/sandbox"
)

// What runs inside reaches the model through the broker and nothing else, and
// finds the key nowhere.
func TestRealKeyStaysOutside(t *testing.T) {
	const key = "sk-ant-the-real-key-0123456789"
	sb := realBox(t)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	look := `env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n'; ` +
		`find / -xdev -type f -size -2M -not -path '/proc/*' -not -path '/sys/*' -not -path '/usr/*' -exec cat {} + 2>/dev/null >/tmp/all; ` +
		`grep -a -c "the-rea[l]-key" /tmp/all; echo marker-2`
	reach := `for a in ` + strings.ReplaceAll(host.Addr().String(), ":", "/") + ` 1.1.1.1/443 169.254.169.254/80; do ` +
		`timeout 3 bash -c "exec 3<>/dev/tcp/$a" 2>/dev/null && echo "reached $a"; done; echo marker-3`
	model := claudetest.NewHandler(claudetest.Sequence(
		claudetest.Tool("Bash", map[string]any{"command": look, "description": "look for the key"}),
		claudetest.Tool("Bash", map[string]any{"command": reach, "description": "look for a way out"}),
		claudetest.Text("done"),
	), nil)
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: model, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(upstream) }()
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	b, err := broker.New(&broker.Options{Upstream: "http://" + upstream.Addr().String(), Key: broker.APIKey(key), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	raw, results := lookAround(t, ask(t, sb, "x", with(b)))
	if !strings.HasSuffix(results[0], "\n0\nmarker-2") || !strings.Contains(results[0], "ANTHROPIC_API_KEY=vivarium-") {
		t.Errorf("looking for the key gave:\n%s", results[0])
	}
	if results[1] != "marker-3" {
		t.Errorf("looking for a way out gave:\n%s", results[1])
	}
	if strings.Contains(raw, key) {
		t.Error("the key is in what the CLI wrote")
	}
	wantNoKey(t, sb, key)
	asked := model.Requests(claudetest.Main)
	if len(asked) != 3 {
		t.Errorf("the model was asked %d times, want 3", len(asked))
	}
	for _, r := range asked {
		if r.Key() != key {
			t.Errorf("the model was asked with the key %q", r.Key())
		}
	}
}

// lookAround gives all the lines of a run, and what its two tools answered.
func lookAround(t *testing.T, st *claude.Stream) (raw string, results []string) {
	t.Helper()
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		raw += string(m.Raw()) + "\n"
		if u, ok := m.(*claude.UserMessage); ok {
			for _, block := range u.Content() {
				results = append(results, block.Content.Text())
			}
		}
	}
	if len(results) != 2 {
		t.Fatalf("%d tool results, want 2:\n%s", len(results), raw)
	}
	return raw, results
}

// wantNoKey looks through the files that the run left.
func wantNoKey(t *testing.T, sb *sandbox.Sandbox, key string) {
	t.Helper()
	root := sb.FSAt(t.Context(), "/")
	for _, dir := range []string{"home", "tmp", strings.TrimPrefix(sb.Dir(), "/")} {
		err := fs.WalkDir(root, dir, func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) {
				return fs.SkipDir // what the sandbox's user cannot read, the run cannot have written
			}
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			data, err := root.ReadFile(name)
			if err == nil && strings.Contains(string(data), key) {
				t.Errorf("the key is in %s", name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
