//go:build unix

package ociimage

// Root is what a sandbox's file system is made of.
type Root struct {
	ID   string
	Host bool // on top of this machine's programs, instead of nothing
	// Layers are absolute directories, lowest first.
	Layers []string
	// Record is a file. Who holds a shared flock on it keeps the layers from
	// being removed; Hold does.
	Record string

	Env        []string // KEY=VALUE
	Dir, User  string
	Entrypoint []string
	Command    []string
}
