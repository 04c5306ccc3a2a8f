package claude

import "github.com/vivarium-go/vivarium/sandbox"

// Mounts is what Config.Mounts of a sandbox needs for the CLI to be in it.
func (c *CLI) Mounts() []sandbox.Mount {
	source, target := c.Mount()
	return []sandbox.Mount{{Source: source, Target: target}}
}
