package scriptedcli_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest/scriptedcli"
)

// A test of code that uses package claude, without the CLI.
func Example() {
	test := func(t *testing.T) {
		box := scriptedcli.Start(t, func(c *scriptedcli.CLI) {
			p, _ := c.Prompt()
			c.Text("Hello, " + p.Text)
			c.Result(p, scriptedcli.Result{Text: "Hello, " + p.Text, CostUSD: 0.01})
			c.Drain()
		})
		st, err := claude.Query(t.Context(), box.Sandbox, "world", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		if res, err := st.Result(); err != nil || res.CostUSD != 0.01 {
			t.Errorf("got %+v, %v", res, err)
		}
	}
	fmt.Println(test != nil)
	// Output: true
}

// What was recorded of the real CLI is played again.
func ExampleReplay() {
	play, err := scriptedcli.Replay(strings.NewReader(`{"type":"result","subtype":"success","is_error":false,"result":"done"}`))
	fmt.Println(play != nil, err)
	// Output: true <nil>
}
