// Package claudetest is a scripted stand-in for the model's API: a real HTTP
// server that speaks the Messages API, streaming and not, so that the real
// Claude Code CLI runs against it offline and does exactly what a test says.
//
//	srv := claudetest.Start(t, claudetest.Sequence(
//		claudetest.Tool("Write", map[string]any{"file_path": dir + "/a.txt", "content": "hi"}),
//		claudetest.Text("Done."),
//	))
//	cmd := exec.Command("claude", "-p", "make a.txt")
//	cmd.Env = append(srv.Env(), "HOME="+home, "PATH="+os.Getenv("PATH"))
//
// A [Script] is a function in the manner of [net/http.HandlerFunc]: it is given
// one request and writes one reply, and may block to hold the reply back. The
// combinators cover most tests: [Text], [Thinking], [Tool], [Error],
// [Disconnect] and [Tokens] are parts of a reply, [Join] puts parts into one
// reply, [Sequence] answers one request after the other, [PerSession] keeps
// sessions apart, and [Gate] stops a reply until the test lets it go on.
//
// The CLI also sends requests that are not turns of the conversation: titles
// for sessions, summaries, side questions, probes. Those never reach the
// script; see [Kind] for how they are told apart and [Options.Side] for what
// answers them.
//
// [Prompted] is a script for demonstrations without a model: it does what a
// prompt of the form "write FILE: TEXT" or "run: COMMAND" says.
//
// What the CLI sends was read off version 2.1.328; the formats are those of
// https://docs.anthropic.com/en/api/messages.
package claudetest
