// Package sandbox runs commands in disposable sandboxes and reads and writes
// their files, the same on every driver.
//
// A driver's package opens a Provider: localbox.Open for this machine. The
// Provider makes a Sandbox, or attaches to one that another process made:
//
//	p, err := localbox.Open(nil)
//	sb, err := p.Create(ctx, &sandbox.Config{Memory: 1 << 30, Timeout: time.Hour})
//	defer sb.Terminate(context.WithoutCancel(ctx))
//	out, err := sb.Command(ctx, "go", "version").Output()
//
// Cmd reads like os/exec's; FS is an fs.FS with writing beside it. Close lets
// go of a sandbox, Terminate destroys it.
//
// Errors carry the operation and the sandbox's id as *Error, and match the
// sentinels here or standard ones: fs.ErrNotExist, exec.ErrNotFound,
// errors.ErrUnsupported. A command that ran and failed is an *ExitError,
// never to be confused with one that could not be run.
package sandbox
