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
// combinators cover most tests:
//
//   - [Text], [Thinking], [Tool], [Structured], [WebSearch], [ServerTool], [Tokens],
//     [Stop], [Header] and [Gate], which stops a reply until the test lets it go on,
//     are parts of a reply, and [Join] puts parts into one;
//   - [Status], [Error], [Overloaded], [RateLimited], [Disconnect] and [Cut] fail;
//   - [Sequence] answers one request after the other, [When] by what the request is,
//     [PerSession] keeps sessions apart, and [PerAgent] subagents, whose turns go to
//     [Options.Subagent].
//
// What the model was asked is in [Handler.Requests], found with a [Match]
// ([Handler.Find], [Handler.Wait]), and compared with [Request.Conversation] and
// [Request.Calls], which go-cmp takes.
//
// The CLI also sends requests that are not turns of the conversation: titles
// for sessions, summaries, side questions, probes. Those never reach the
// script; see [Kind] for how they are told apart and [Options.Side] for what
// answers them.
//
// [Prompted] is a script for demonstrations without a model: it does what a
// prompt of the form "write FILE: TEXT" or "run: COMMAND" says.
//
// Where the CLI itself is not wanted either, package scriptedcli stands in for it.
//
// What the CLI sends was read off version 2.1.328; the formats are those of
// https://docs.anthropic.com/en/api/messages.
package claudetest
