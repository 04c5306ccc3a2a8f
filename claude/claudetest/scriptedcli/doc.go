// Package scriptedcli is a stand-in for the Claude Code CLI: a [sandbox.Sandbox]
// whose every command is a function of the test, so that what uses package claude
// can be tested without the CLI, without a model, and on every machine.
//
//	box := scriptedcli.Start(t, func(c *scriptedcli.CLI) {
//		prompt, _ := c.Prompt()
//		c.Text("You said: " + prompt.Text)
//		c.Result(prompt, scriptedcli.Result{Text: "done"})
//		c.Drain()
//	})
//	st, err := claude.Query(ctx, box.Sandbox, "hi", nil)
//
// A [Play] writes lines of stream-json and reads what arrives on stdin. The control
// protocol is answered by itself, initialize and interrupt included, and a play can
// answer parts of it in its own way ([CLI.Handle]) and ask in turn ([CLI.Ask]). [Replay]
// is a play that writes what was recorded of the real CLI.
//
// For tests with the real CLI see package claudetest, which stands in for the model.
// The protocol is that of Claude Code 2.1.328, as measured.
package scriptedcli
