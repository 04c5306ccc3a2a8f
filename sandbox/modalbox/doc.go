// Package modalbox is the driver that runs sandboxes on Modal (modal.com),
// through Modal's official Go client.
package modalbox
