// Package tunnel makes the ports of a sandbox reachable from this machine, as
// Modal makes them reachable from everywhere: an encrypted port by TLS that ends
// here, an unencrypted one by plain TCP, and any port by HTTP for who has a
// connect token.
//
// Modal's tunnels are at names below modal.host and at port 443. These are at
// 127.0.0.1 and a port of their own, which is what can really be dialled, and
// their certificates come from an authority that is made anew each time: a
// client must be told to trust it.
package tunnel
