// Package broker holds the model's API key outside the sandbox. A [Broker] is an
// [net/http.Handler] that stands where the sandbox expects the model's API; what
// runs inside is given a phantom token instead of the key:
//
//	b, err := broker.New(&broker.Options{Key: broker.APIKey(os.Getenv("ANTHROPIC_API_KEY"))})
//	token := b.NewToken(nil)
//	defer token.Revoke()
//	// inside: ANTHROPIC_BASE_URL=http://…, ANTHROPIC_API_KEY=token.Value()
//
// A request with a valid phantom token for one of the model's endpoints goes to
// the upstream with the real key; everything else is answered here, with an
// error of the API's shape. These are the endpoints, as measured with Claude
// Code 2.1.328:
//
//	POST /v1/messages
//	POST /v1/messages/count_tokens
//	GET  /v1/models and /v1/models/{id} (HEAD as well)
//
// /api/hello, which the CLI asks to see whether it is online, is answered here
// without a token and tells nothing.
//
// What comes from inside is not trusted: of its headers only those that the API
// knows go on, never a credential, and its path must be one of the above letter
// by letter. A body that makes the API itself reach out, by a server tool, an MCP
// server, a container, or an image or document at a URL, is refused with 403
// permission_error unless [Options.AllowServerTools] is set: it would be a way
// out of a sandbox that has no network. The CLI's WebSearch tool needs it; Claude
// is told that the search failed, and goes on. A body that is not one JSON object
// is refused with 400 invalid_request_error. Bodies are looked at while they
// pass; one that is refused never reaches the upstream whole. What comes from the
// upstream loses its cookies, redirects are errors, and an answer that repeats the
// key has it replaced by asterisks. The key is in no error and no log line.
//
// # Usage and limits
//
// What a request used is read off its answer as it passes, streamed or not, and
// priced by a table ([DefaultPrices], as of [PricesAsOf], [Options.Prices]). It is
// counted for the token ([Token.Usage]), for the [Account] that the token was made
// with, and for the broker, event by event, so that it is right at any moment; and
// [Options.Observe] is told of every request for a message exactly once, for a
// ledger. An answer that is cut is counted by an estimate, and says so.
//
// [Limits] bound money, tokens, the rate of requests and how many are under way, of
// a token and of an account. A budget that is used up is answered with 402
// billing_error and X-Should-Retry: false, at which Claude Code ends with the
// broker's words; as measured with 2.1.328, it takes an error event within a stream
// for a reason to ask once more, which is refused in turn. [Token.Revoke] and
// [Account.Revoke] cut requests under way at once.
//
// # Where to put it
//
// A [Broker] is served inside a sandbox by claude.Endpoint, needs no network there,
// and makes a token for each run; [Broker.With] does so with options. For sandboxes
// that reach it over the internet, mount it below a path of a public server,
//
//	mux.Handle("/model/", http.StripPrefix("/model", b))
//
// and give them that URL and a token of [Broker.NewToken].
package broker
