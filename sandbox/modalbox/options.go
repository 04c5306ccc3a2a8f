package modalbox

import "cmp"

// Options vary Open. The zero value, and nil, are good defaults.
type Options struct {
	// App is the name of the Modal app that the sandboxes belong to; it is made
	// when it is missing. Providers with the same App see the same sandboxes.
	// Empty means "vivarium".
	App string

	// Environment is the Modal environment of the app, and of the secrets and
	// volumes that a Config names. Empty means the client's.
	Environment string

	// Image is the base of a sandbox whose Config.Image says nothing. It has to
	// have a POSIX shell at /bin/sh, coreutils or busybox, and grep. Empty means
	// "debian:12-slim".
	Image string

	// EncryptedPorts gives Config.Ports tunnels that speak TLS instead of plain
	// TCP, so that Info.Ports are addresses for a TLS client. The name to verify
	// is the host.
	EncryptedPorts bool
}

func (o *Options) app() string   { return cmp.Or(o.App, "vivarium") }
func (o *Options) image() string { return cmp.Or(o.Image, "debian:12-slim") }
