package modalbox_test

import (
	"strings"
	"testing"

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
