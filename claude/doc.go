// Package claude runs Claude Code in a sandbox and gives what it does as it
// happens: typed messages, words, or the raw lines of the CLI's stream-json.
//
// One prompt, one run:
//
//	st, err := claude.Query(ctx, sb, "fix the failing test", &claude.Options{
//		PermissionMode: claude.PermissionBypass,
//		Endpoint:       claude.Endpoint{Handler: broker},
//	})
//	if err != nil { … }
//	defer st.Close()
//	for msg, err := range st.Messages() {
//		if err != nil { … }
//		if said, ok := msg.(*claude.AssistantMessage); ok { fmt.Println(said.Content().Text()) }
//	}
//	res, err := st.Result() // cost, usage, turns
//
// Several turns over one process are a [Session], from [Client.NewSession] or
// [Client.Resume]. [QueryAs] gives an answer as a Go value. [Options] has
// functions that are asked before a tool is used, hooks, and MCP servers of this
// process, which package claude/mcpserver makes. Conversations are files of the
// sandbox: [Client.ExportSession] and [Client.ImportSession] take them to another.
// A question to the user need not hold a sandbox: Options.Defer ends the run with it, and
// Options.Answers go on, in another sandbox too, when there is an answer.
// [Client.Start] begins a run that outlives this process, and [Client.Adopt] takes it
// over.
//
// The CLI is driven as the official SDKs drive it: it never sees a terminal,
// prompts and system prompts travel over its standard input and never in its
// arguments, and its output is read to the end before it is waited for. No
// line is dropped for its length or because its type is not known here.
//
// The model's key need not be in the sandbox: an [Endpoint] is an http.Handler
// of this process that the CLI reaches over the sandbox's loopback, with or
// without a network. Package claude/broker has one that adds the key.
//
// A [Message] is one of the types of this package, and *[UnknownMessage] for what
// a newer CLI comes to say. [Decode] reads a line that was kept.
//
// An end of the stream is not a success. A run has succeeded only when a result
// message said so; everything else is one of the errors of this package, and
// [EndOf] puts them in the words used for endings everywhere.
//
// Facts about the CLI were read off version 2.1.328.
package claude
