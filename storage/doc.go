// Package storage keeps a sandbox's working directory in object storage as
// versions one can go back to.
//
// A [Volume] is a named series of versions in a [Bucket]. [Volume.Sync] reads a
// directory out of a sandbox and stores it as a new version, [Volume.Restore]
// puts a version back, deletions included, and [Volume.Init] restores the newest
// one. A version is whole or absent: its archive is stored first, and its
// manifest last, with a conditional create.
//
// Buckets are in the folders below: dirbucket keeps objects in a local directory
// and s3bucket in anything that speaks S3. storagetest holds the conformance
// suite, an in-memory bucket and fault injection.
//
// The package does not know what a sandbox is. It needs a [Runner]: something
// that runs one command where the directory lives. There, the commands sh, tar
// (GNU or busybox), find, mv, rm, mkdir, chmod, stat, touch and tail must exist. What comes out of
// a sandbox is untrusted: it is never unpacked on this side, and every tar header
// is checked and written anew, on the way in and on the way out.
//
// The layout of the objects is in docs/storage-format.md.
package storage
