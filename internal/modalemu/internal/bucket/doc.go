// Package bucket shows a bucket that speaks S3 as a directory, as Modal does: by
// Mountpoint for Amazon S3, whose semantics these are
// (https://github.com/awslabs/mountpoint-s3/blob/main/doc/SEMANTICS.md).
//
// Objects are files, "/" in their keys makes directories. Everything is asked of
// the bucket when it is needed: what others put there is seen at once. A new
// file is written from its beginning to its end, and becomes an object, whole,
// when it is closed or synced; until then nobody can read it. A file that is there
// can be replaced (O_TRUNC) and removed, and not appended to, changed in part or
// renamed. There are no links, and modes, owners and times cannot be set.
// Directories that are made are known here only, until they have a file.
//
// It is a FUSE file system of this process, so it needs Linux, /dev/fuse, and
// root or fusermount3.
package bucket
