package bucket

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// maxObject is what one PUT can store.
	maxObject = 5 << 30
	// storeTime bounds the storing of a file.
	storeTime = 10 * time.Minute
	// settleTime is how long an open waits for a file that somebody has closed to be
	// stored: the kernel tells of the last close behind the back of who closed.
	settleTime = time.Second
)

// fileNode is an object, or a file that is to become one.
type fileNode struct {
	fs.Inode
	m    *Mount
	path string
}

var (
	_ fs.NodeGetattrer = (*fileNode)(nil)
	_ fs.NodeSetattrer = (*fileNode)(nil)
	_ fs.NodeOpener    = (*fileNode)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (f *fileNode) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return f.m.fileAttr(ctx, f.path, &out.Attr)
}

// Setattr implements fs.NodeSetattrer. Times of a file that is being written are
// accepted, for touch, and are not kept.
func (f *fileNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if err := f.m.mayChange(ctx); err != 0 {
		return err
	}
	f.m.mu.Lock()
	u := f.m.writing[f.path]
	f.m.mu.Unlock()
	const kept = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
	size, sized := in.GetSize()
	if u == nil || in.Valid&kept != 0 || sized && int64(size) != u.size() {
		return syscall.EPERM
	}
	u.attr(&out.Attr)
	return 0
}

func (m *Mount) fileAttr(ctx context.Context, path string, a *fuse.Attr) syscall.Errno {
	m.mu.Lock()
	u := m.writing[path]
	m.mu.Unlock()
	if u != nil {
		u.attr(a)
		return 0
	}
	head, err := m.head(ctx, path)
	if err != 0 {
		return err
	}
	setAttr(a, aws.ToInt64(head.ContentLength), aws.ToTime(head.LastModified))
	return 0
}

func setAttr(a *fuse.Attr, size int64, at time.Time) {
	a.Mode, a.Nlink, a.Size = syscall.S_IFREG|0o644, 1, uint64(size)
	a.Blksize, a.Blocks = 4096, (uint64(size)+511)/512
	a.SetTimes(&at, &at, &at)
}

func (m *Mount) head(ctx context.Context, path string) (*s3.HeadObjectOutput, syscall.Errno) {
	head, err := m.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &m.cfg.Bucket, Key: m.key(path), RequestPayer: m.cfg.payer()})
	return head, errno(err)
}

// Open implements fs.NodeOpener. What is there is read, or replaced as a whole.
func (f *fileNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	write := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	switch {
	case write && flags&syscall.O_TRUNC != 0:
		if err := f.m.mayChange(ctx); err != 0 {
			return nil, 0, err
		}
		u, err := f.m.write(ctx, f.path)
		return u, fuse.FOPEN_DIRECT_IO, err
	case flags&(syscall.O_TRUNC|syscall.O_APPEND) != 0, flags&syscall.O_ACCMODE == syscall.O_WRONLY:
		return nil, 0, syscall.EPERM
	}
	if u := f.m.settled(ctx, f.path); u != nil {
		return nil, 0, syscall.EPERM // it is being written
	}
	head, err := f.m.head(ctx, f.path)
	if err != 0 {
		return nil, 0, err
	}
	return &reader{f.m, f.path, head.ETag, aws.ToInt64(head.ContentLength)}, 0, 0
}

// reader reads the object that was there when the file was opened.
type reader struct {
	m    *Mount
	path string
	etag *string
	size int64
}

var (
	_ fs.FileReader  = (*reader)(nil)
	_ fs.FileWriter  = (*reader)(nil)
	_ fs.FileFsyncer = (*reader)(nil)
)

// Fsync implements fs.FileFsyncer: what can be read is stored.
func (r *reader) Fsync(context.Context, uint32) syscall.Errno { return 0 }

// Read implements fs.FileReader.
func (r *reader) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	end := min(off+int64(len(dest)), r.size)
	if off >= end {
		return fuse.ReadResultData(nil), 0
	}
	got, err := r.m.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &r.m.cfg.Bucket, Key: r.m.key(r.path), IfMatch: r.etag, RequestPayer: r.m.cfg.payer(),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, end-1))})
	if err != nil {
		return nil, errno(err)
	}
	defer got.Body.Close()
	dest = dest[:end-off]
	if _, err := io.ReadFull(got.Body, dest); err != nil {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest), 0
}

// Write implements fs.FileWriter, for files that were opened for both.
func (r *reader) Write(context.Context, []byte, int64) (uint32, syscall.Errno) {
	return 0, syscall.EPERM
}

// upload is a file that is being written.
type upload struct {
	m      *Mount
	path   string
	opener int           // process, 0 for one that cannot be told
	done   chan struct{} // closed once it is stored, or is not going to be

	mu      sync.Mutex
	spool   *os.File
	written int64
	at      time.Time
	closed  bool // by somebody; others may have it open still
	ended   bool
	err     syscall.Errno
}

var (
	_ fs.FileWriter   = (*upload)(nil)
	_ fs.FileReader   = (*upload)(nil)
	_ fs.FileFlusher  = (*upload)(nil)
	_ fs.FileFsyncer  = (*upload)(nil)
	_ fs.FileReleaser = (*upload)(nil)
)

// write begins a file. One that somebody else writes is refused.
func (m *Mount) write(ctx context.Context, path string) (*upload, syscall.Errno) {
	if m.settled(ctx, path) != nil {
		return nil, syscall.EPERM
	}
	spool, err := m.spoolFile()
	if err != nil {
		m.log.Error("a file of a bucket cannot be written", "error", err)
		return nil, syscall.EIO
	}
	u := &upload{m: m, path: path, opener: caller(ctx), spool: spool, at: time.Now(), done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writing[path] != nil {
		spool.Close()
		return nil, syscall.EPERM
	}
	m.writing[path] = u
	return u, 0
}

// settled gives the upload to a path, when there is one that goes on.
func (m *Mount) settled(ctx context.Context, path string) *upload {
	m.mu.Lock()
	u := m.writing[path]
	m.mu.Unlock()
	if u == nil || !u.isClosed() {
		return u
	}
	t := time.NewTimer(settleTime)
	defer t.Stop()
	select {
	case <-u.done:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	return u
}

func (u *upload) attr(a *fuse.Attr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	setAttr(a, u.written, u.at)
}

func (u *upload) isClosed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}

func (u *upload) size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.written
}

// Write implements fs.FileWriter: in order, and not after it was stored.
func (u *upload) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.ended:
		return 0, syscall.EPERM
	case off != u.written:
		return 0, syscall.EINVAL
	case u.written+int64(len(data)) > maxObject:
		return 0, syscall.EFBIG
	}
	if _, err := u.spool.WriteAt(data, off); err != nil {
		u.m.log.Error("a file of a bucket cannot be written", "error", err)
		return 0, syscall.EIO
	}
	u.written += int64(len(data))
	return uint32(len(data)), 0
}

// Read implements fs.FileReader: what is being written cannot be read.
func (u *upload) Read(context.Context, []byte, int64) (fuse.ReadResult, syscall.Errno) {
	return nil, syscall.EPERM
}

// Fsync implements fs.FileFsyncer. Nothing can be written after it.
func (u *upload) Fsync(ctx context.Context, _ uint32) syscall.Errno { return u.store(ctx) }

// Flush implements fs.FileFlusher, which is each close. Programs hand open files
// on: a close that is another process's, or comes before anything was written, is
// not taken for the last one.
func (u *upload) Flush(ctx context.Context) syscall.Errno {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	if u.size() > 0 && u.opener != 0 && caller(ctx) == u.opener {
		return u.store(ctx)
	}
	return 0
}

// Release implements fs.FileReleaser: nobody has the file open any more.
func (u *upload) Release(ctx context.Context) syscall.Errno {
	err := u.store(ctx)
	if err != 0 {
		u.m.log.Error("a file of a bucket was not stored", "bucket", u.m.cfg.Bucket, "file", u.path, "error", err)
	}
	return err
}

// store makes the object, the first time.
func (u *upload) store(ctx context.Context) syscall.Errno {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return u.err
	}
	u.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	_, err := u.m.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &u.m.cfg.Bucket, Key: u.m.key(u.path), ContentLength: &u.written, RequestPayer: u.m.cfg.payer(),
		Body: io.NewSectionReader(u.spool, 0, u.written)})
	u.err = errno(err)
	u.spool.Close()
	u.m.mu.Lock()
	delete(u.m.writing, u.path)
	if err == nil { // the directories that it is in are the bucket's now
		for dir := parent(u.path); dir != ""; dir = parent(dir) {
			delete(u.m.dirs, dir)
		}
	}
	u.m.mu.Unlock()
	close(u.done)
	return u.err
}
