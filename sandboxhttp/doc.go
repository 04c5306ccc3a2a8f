// Package sandboxhttp serves sandboxes and what Claude does in them over HTTP:
// an http.Handler to mount behind one's own login.
//
//	h, err := sandboxhttp.New(&sandboxhttp.Config{
//		Provider: provider,
//		Auth:     sandboxhttp.BearerToken(token, &sandboxhttp.Principal{Account: "acme"}),
//		Sandbox:  &sandbox.Config{Mounts: cli.Mounts()},
//		Claude:   &claude.Options{PermissionMode: claude.PermissionBypass, Endpoint: endpoint},
//	})
//	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", h))
//	…
//	err = h.Shutdown(ctx) // before the http.Server's
//
// What is served is in docs/http.md: sandboxes are made, listed, looked at and
// deleted; a prompt is a run, whose events are the lines of the CLI's
// stream-json as server-sent events, numbered, so that a client that lost its
// connection goes on where it was. A run belongs to no connection: it goes on
// when they are cut, and any number may follow it.
//
// Everything belongs to an account, which the Auth hook gives; what belongs to
// another account does not exist. Records of sandboxes and runs are in a Store.
// The one here is in memory, those of package sqlstore are in SQLite or PostgreSQL;
// sandboxes that outlive the server and their records are found again by the tags
// they carry. One server at a time works with the records of an account.
//
// Leave http.Server.WriteTimeout at 0 or set it as you like: streams set their
// own deadline for each write. A middleware that wraps the ResponseWriter needs
// an Unwrap method, as http.ResponseController says, and must not compress or
// hold back text/event-stream.
package sandboxhttp
