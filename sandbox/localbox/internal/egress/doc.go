// Package egress is the way out of a sandbox: a forward HTTP proxy that runs on
// the host, serves one sandbox, and lets through what the sandbox's
// driver.Network allows and nothing else. The sandbox itself has no route
// anywhere; a program in it that does not use a proxy (Env sets the variables
// that most programs follow) reaches nothing.
//
//	p := egress.New(cfg.Network, nil)
//	go p.Serve(listener) // a listener inside the sandbox's network namespace
//	defer p.Close()
//
// It speaks HTTP/1.1: CONNECT for TLS and everything else, and requests in
// absolute form for plain http.
//
// # What is allowed
//
// With driver.NetworkAllowlist a name must be in Domains; it is looked up only
// then, so that lookups cannot carry data out. An address given by number must
// be in CIDRs. With driver.NetworkFull any name and number will do. With
// driver.NetworkNone nothing is.
//
// Whatever a name resolves to, every one of its addresses is checked, and
// exactly a checked address is dialed: a name that changes its answer between
// the check and the connection gains nothing. An address has to be public. One
// that is not (loopback, private, link-local with the clouds' metadata,
// carrier-grade NAT, multicast, documentation, benchmarks, unique local,
// tunnels that embed an IPv4 address, an address of this machine's own
// interfaces) is dialed only when an entry of CIDRs names it explicitly, in
// either mode: the entry must lie within that special block (10.1.0.0/16 within
// 10.0.0.0/8), so 0.0.0.0/0 opens no private address, and an address of this
// machine other than loopback must be an entry by itself (/32 or /128).
// Unspecified, multicast and reserved addresses, and those with a zone, are
// never dialed.
//
// Every port is allowed but 25: a sandbox that can hand mail to other people's
// mail servers gets this machine's address blocked for everybody. An allowed
// host is one somebody trusts, and driver.Network has no way to name a port, so
// a narrower rule would leave package registries on odd ports without remedy.
//
// # What it cannot see
//
// A tunnel's bytes are not looked at. A client that was allowed to connect to
// one name of a shared server may ask that server for another one that it
// serves (domain fronting); list only names whose servers are trusted.
//
// # Answers
//
// A refusal is a text/plain body that names the host and the remedy, and a
// Proxy-Status field (RFC 9209) that says the same for programs: 400 for what
// is no target, 403 for what is not allowed, 502 and 504 when the far side could
// not be reached, 503 when too many connections are open.
package egress
