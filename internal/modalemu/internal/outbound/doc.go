// Package outbound sets headers of HTTPS requests on their way out of a sandbox,
// which is how a program in it can use a key that it cannot see.
//
//	p, err := outbound.New(rules, &outbound.Options{Authority: a, Dial: dial})
//	go p.Serve(listener) // inside the sandbox; HTTPS_PROXY names it
//	defer p.Close()
//
// It is a proxy that takes CONNECT and nothing else. A tunnel to port 443 of a
// host that a rule names ends here: the client sees a certificate of Authority,
// which it has to trust, each request gets the headers of all rules that match
// the host, and goes on to that host by a TLS connection of this process's own,
// whose certificate is verified. Every other tunnel is carried on as it is.
//
// What goes on is bound to the host that the certificate was verified for. A
// request whose Host is another one is refused with 421, since a server that
// serves many names would hand the headers to any of them, and so is TRACE,
// with 405, whose answer is the request.
package outbound
