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
// # Root of its own
//
// A sandbox that starts from an image, or from HostRoot, has a root file system
// that it can change: the image's layers below, all changes in memory on top.
// Commands run there as root, or as the image's USER, of a user namespace of
// their own, with the few capabilities over it that installing software takes:
// no capability counts for anything of this machine, and mounting, tracing, raw
// sockets and devices stay shut. When the program runs as root each sandbox has
// 65,536 users outside that nobody else has; when an ordinary user runs it, root
// inside is that user and there is no other, so an image with a USER is refused.
// It needs Linux 6.6, and, as root, a state directory on a file system whose
// owners can be mapped (ext4, xfs, btrfs; not the overlay of a container).
//
// Of HostRoot this machine's programs belong to nobody inside: root there reads
// of them what everybody here may read, and can add, replace and remove files in
// the directories that software is put into (/usr, /usr/bin, /usr/local, those
// right below /usr/lib and /usr/share, and so on), but not change one in place.
// Of /etc it has a copy of the same parts that the default shows.
//
// Snapshot saves what was changed, SnapshotDir a directory, both as images.
// MountImage shows one in a running sandbox, when root runs the program.
//
// # Images
//
// Config.Image.Base names an image of a registry, such as "debian:12", which is
// pulled for this machine's architecture, verified against its digests, and kept
// in the state directory layer by layer. What a tag names is looked up once;
// BuildImage with Force looks again. Registries on the loopback are spoken to in
// plain HTTP. Credentials are the image's own (Image.Registry) and are needed
// again by whoever names the image without having them, though it is here.
//
// Image.Commands are Dockerfile commands, each kept as a layer and run again only
// when it, or what is below it, has changed; HostRoot, "scratch" and other stages
// can be what they start FROM. A RUN runs in a sandbox of its own with the full
// network (see below), within ImageOptions.BuildMemory, and as what the image
// says with USER. There is no build context: ADD, and COPY of local files, are
// refused, and so are RUN --mount and devices. HEALTHCHECK, STOPSIGNAL, EXPOSE
// and VOLUME are recorded only.
//
// DeleteSnapshot deletes images as well: their layers go when no other image, and
// no sandbox, has them.
//
// # Mounts
//
// Config.Mounts are read-only unless Writable. When root runs the program, the
// owner of a writable Source is the sandbox's user inside, and what is written
// there belongs here to that owner; in a sandbox with a root of its own whose
// Source is root's, owners are the same inside and here. Such a Source must be
// in a directory that other users of this machine cannot enter: what runs inside
// could put a set-uid program there.
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
// (HTTPS_PROXY and so on); programs that know no proxy reach nothing. SetNetwork
// changes it while the sandbox runs: what is open to where it may not go any more
// is cut, and commands that start later get the environment. Listen and Dial
// reach ports inside from this process, Config.Ports from this machine.
//
// # Without isolation
//
// Where the machine cannot isolate, Open fails with an error that matches
// sandbox.ErrNoIsolation and names the remedy. With Options.AllowUnisolated it
// goes on with plain processes of this user, on Linux and macOS: for trusted
// code only. Info.Isolated tells.
package localbox
