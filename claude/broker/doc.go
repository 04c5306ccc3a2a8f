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
// pass; one that is refused never reaches the upstream whole. What comes from the upstream loses its cookies, redirects are
// errors, and an answer that repeats the key has it replaced by asterisks. The
// key is in no error and no log line.
package broker
