// Package modalbox is the driver that runs sandboxes on Modal (modal.com),
// through Modal's official Go client.
//
//	client, err := modal.NewClient()
//	p, err := modalbox.Open(client, nil)
//	sb, err := p.Create(ctx, &sandbox.Config{Image: sandbox.Image{Base: "debian:12-slim"}})
//	out, err := sb.Command(ctx, "echo", "hello").Output()
//	err = sb.Terminate(ctx)
//
// Package modaltest starts an emulator of Modal to develop and test against.
//
// # What an image needs
//
// A POSIX shell at /bin/sh, the usual tools of coreutils or busybox, grep, and
// /proc. Listen and Dial run a relay inside, which needs node or python3.
//
// # Commands
//
// Modal starts a command and tells its output and exit code; it has no call to
// signal one, to end one, or to resize a terminal. So each command is started
// through a small program that this package puts into /tmp when it makes a
// sandbox (or through a line of shell, where that cannot be). It marks the
// command by a limit that everything which comes from it inherits, and tells its
// process id; a second command then signals it, or kills it with all that carries
// the mark, daemons included. Beside that one program, which costs a tenth of a
// shell's start, a command takes the calls to Modal that it would take anyway.
//
// gVisor, on which Modal runs sandboxes unless they are virtual machines, refuses
// that limit. A command there is killed with its process group, its session and
// their descendants; a daemon that has left all three stays until the sandbox ends.
//
// Modal gives a command that a signal ended the exit code 128 and the signal.
// What this side has sent is told as a signal; when somebody else sent it, or a
// process crashed, Exit.Code is that number. Exit has no usage, and Exit.OOM is
// never set. When stdout or stderr is closed early, the next thing that the
// command writes ends its process group by SIGPIPE.
//
// Arguments and environment over 40 KiB, or not in UTF-8, go by way of a file.
//
// # Files
//
// They are worked on by name with Modal's own tools and short scripts: an open
// file that is renamed or removed meanwhile is gone. Times are exact to a
// microsecond. What was written is certain once Close, Seek, Read or Stat has
// returned.
//
// # Settings
//
//   - Timeout is one hour when it is 0, and 24 hours at most; times are rounded up
//     to seconds.
//   - CPU and Memory are both what is reserved and the limit.
//   - GPU, Cloud and Regions are Modal's words.
//   - SecretNames, Volumes and HeaderRules name what the Modal environment keeps;
//     a volume is made when it is missing.
//   - Ports are tunnels of plain TCP, or of TLS with Options.EncryptedPorts.
//     Anyone who knows the address can connect.
//   - Dir is made when it is missing.
//   - Pids, Disk and Mounts are refused.
//
// Tags that begin with "vivarium-" are this package's own: Modal keeps nothing
// else of a sandbox that could be asked for, so when it was made and until when it
// lives, its name, directory and ports are in them.
//
// # The end of a sandbox
//
// The client tells the end by an exit code only. Info.End is EndLifetime or
// EndIdle for a time-out, and EndCancelled for what was terminated; List knows no
// sandbox that has ended.
package modalbox
