// Package volume keeps the emulator's volumes: directories whose files several
// sandboxes use without seeing each other's writes before they are committed
// and reloaded.
//
// A volume is a directory of committed files on disk. Each mount has a private
// copy of it, which is what the sandbox sees and writes to. Commit carries what
// changed in the copy since it last agreed with the volume into the volume,
// deletions included; for each path the last to commit wins. Reload commits and
// then brings the copy up to what is committed, in place, since the copy's
// directory is mounted in the sandbox. A mount commits by itself about once a
// second, and when it is closed.
//
// What is in a copy was written by a sandbox. Nothing outside of the copy can be
// read or written through it: every name is opened below its os.Root, symbolic
// links are kept as links and never followed, and anything but directories,
// regular files and links is left out. Permissions, owners, hard links, holes and
// modification times of files are kept; extended attributes are not.
//
// Several mounts of one volume, and several volumes, may be used at once. A
// committed file is replaced, never written to, so that it can be read while
// others commit.
package volume
