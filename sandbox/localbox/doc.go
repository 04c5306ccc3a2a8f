// Package localbox runs sandboxes on this machine: Linux namespaces, a root of
// its own, a filter of system calls and control groups, in pure Go and without
// a daemon. It works as root and as an ordinary user.
//
//	p, err := localbox.Open(nil)
//	sb, err := p.Create(ctx, nil)
//	out, err := sb.Command(ctx, "echo", "hello").Output()
//	err = sb.Terminate(ctx)
//
// # Processes
//
// The program that uses the package is started again, from its own binary, in
// other roles, before its main runs; nothing has to be installed. A keeper, one
// for each provider that creates, looks after its sandboxes; a helper is
// process 1 in each. Both outlive the program: a sandbox lives until Terminate,
// its Timeout (one hour when Config says nothing), its IdleTimeout or its
// keeper's end, and until then any process of the same user with the same
// directory can Attach to it. Sandbox.Terminate, and Terminate without attaching
// first, go to the keeper: they end a sandbox whose helper does not answer.
//
// # What a sandbox sees
//
// This machine's /usr (and /bin, /lib and so on), read-only; of /etc what
// programs need to find libraries and certificates; its own /proc and /dev; and
// the writable directories /workspace, /home/user, /tmp, /var/tmp and /dev/shm,
// which are in memory, count towards Config.Memory, and together hold
// Config.Disk bytes. Commands run as "user" (1000), who outside is a user that
// nobody else has, or, when an ordinary user runs the program, that user. They
// have no capabilities and can get none.
//
// # Limits
//
// Config.Memory, Config.Pids and Config.CPU need a control group: root has them,
// an ordinary user where systemd delegates version 2. Where one cannot be had,
// processes are counted by RLIMIT_NPROC, which is exact from Linux 5.14 on, CPU
// is held to whole processors, and memory, if asked for, to so much for each
// process; what is not enforced is in Info.Unenforced. By default a sandbox has
// 2 GiB of memory, 2 GiB of disk, 512 processes and threads, and all processors.
// The helper's threads have room of their own, so that a full sandbox can still
// be used: it is counted with the rest, and up to 16 processes more than
// Config.Pids can exist.
//
// Commands inside can change limits and priorities of their own process only:
// renice, ionice, prlimit and chrt fail for others.
//
// # Network
//
// There is none but loopback by default. With an allowlist or the full network,
// a proxy at 127.0.0.1:3128 inside is the way out, named in the environment
// (HTTPS_PROXY and so on); programs that know no proxy reach nothing. Listen and
// Dial reach ports inside from this process, Config.Ports from this machine.
//
// # Without isolation
//
// Where the machine cannot isolate, Open fails with an error that matches
// sandbox.ErrNoIsolation and names the remedy. With Options.AllowUnisolated it
// goes on with plain processes of this user, on Linux and macOS: for trusted
// code only. Info.Isolated tells.
package localbox
