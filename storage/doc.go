// Package storage keeps a sandbox's working directory in object storage as
// versions one can go back to.
//
// A [Volume] is a named series of versions in a [Bucket]. [Volume.Sync] reads a
// directory out of a sandbox and stores it as a new version, [Volume.Restore]
// puts a version back, deletions included, and [Volume.Init] restores the newest
// one. A version is whole or absent: its contents are stored first, and its
// record last, with a conditional create. Only what changed is read, and only
// contents that the volume does not have are stored; Restore writes only what
// differs. [Volume.Diff], [Volume.FS], [Volume.Export] and [Volume.ExportTar] look at
// versions without a sandbox, [Volume.Import] makes one of plain objects,
// [Volume.Prune] forgets versions and [Volume.Verify] reads every byte of them.
//
// Buckets are in the folders below: dirbucket keeps objects in a local directory
// and s3bucket in anything that speaks S3. storagetest holds the conformance
// suite, an in-memory bucket and fault injection.
//
// The package does not know what a sandbox is. It needs a [Runner]: something
// that runs one command where the directory lives. There, the commands sh, find, tar
// (both GNU or busybox), xargs, mv, rm, mkdir, chmod, stat, touch, date, cat and tail must exist.
// What comes out of a sandbox is untrusted: nothing of it is unpacked on this
// side, every name is checked, and only contents that were asked for are taken.
// [Local] is a directory of this machine, which needs no command. [Sealed] encrypts a
// bucket.
//
// The layout of the objects is in docs/storage-format.md.
package storage
