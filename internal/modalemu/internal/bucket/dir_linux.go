package bucket

import (
	"context"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxName is the longest name of a file that Linux knows.
const maxName = 255

// dirNode is a directory.
type dirNode struct {
	fs.Inode
	m    *Mount
	path string // empty, or ends in "/"
}

var (
	_ fs.NodeLookuper  = (*dirNode)(nil)
	_ fs.NodeGetattrer = (*dirNode)(nil)
	_ fs.NodeSetattrer = (*dirNode)(nil)
	_ fs.NodeReaddirer = (*dirNode)(nil)
	_ fs.NodeMkdirer   = (*dirNode)(nil)
	_ fs.NodeRmdirer   = (*dirNode)(nil)
	_ fs.NodeUnlinker  = (*dirNode)(nil)
	_ fs.NodeCreater   = (*dirNode)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (d *dirNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.m.dirAttr(&out.Attr)
	return 0
}

// Setattr implements fs.NodeSetattrer: nothing about a directory can be set.
func (d *dirNode) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

func (m *Mount) dirAttr(a *fuse.Attr) {
	a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
	a.SetTimes(&m.since, &m.since, &m.since)
}

// Lookup implements fs.NodeLookuper. A directory hides a file of the same name.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	p := d.path + name
	is, err := d.m.isDir(ctx, p+"/")
	if err != 0 {
		return nil, err
	}
	if is {
		d.m.dirAttr(&out.Attr)
		return d.child(ctx, name, &dirNode{m: d.m, path: p + "/"}, syscall.S_IFDIR), 0
	}
	if err := d.m.fileAttr(ctx, p, &out.Attr); err != 0 {
		return nil, err
	}
	return d.child(ctx, name, &fileNode{m: d.m, path: p}, syscall.S_IFREG), 0
}

// child gives the node that is known by the name already, lest the kernel takes
// it for another each time, or makes it known.
func (d *dirNode) child(ctx context.Context, name string, node fs.InodeEmbedder, mode uint32) *fs.Inode {
	if known := d.GetChild(name); known != nil && known.Mode() == mode {
		return known
	}
	return d.NewInode(ctx, node, fs.StableAttr{Mode: mode})
}

// isDir reports whether there is a directory at a path, which ends in "/".
func (m *Mount) isDir(ctx context.Context, dir string) (bool, syscall.Errno) {
	m.mu.Lock()
	local := m.dirs[dir] || m.under(dir)
	m.mu.Unlock()
	if local {
		return true, 0
	}
	keys, err := m.some(ctx, dir, 1)
	return len(keys) > 0, err
}

// some gives up to n keys below a directory.
func (m *Mount) some(ctx context.Context, dir string, n int32) ([]string, syscall.Errno) {
	list, err := m.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &m.cfg.Bucket, Prefix: m.key(dir), MaxKeys: &n, RequestPayer: m.cfg.payer()})
	if err != nil {
		return nil, errno(err)
	}
	var keys []string
	for _, o := range list.Contents {
		keys = append(keys, aws.ToString(o.Key))
	}
	return keys, 0
}

// Readdir implements fs.NodeReaddirer.
func (d *dirNode) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	found := make(map[string]uint32) // modes, by name
	add := func(p string, mode uint32) {
		name := strings.TrimSuffix(strings.TrimPrefix(p, d.path), "/")
		if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
			return // cannot be a file's
		}
		if found[name] != syscall.S_IFDIR {
			found[name] = mode
		}
	}
	pages := s3.NewListObjectsV2Paginator(d.m.client, &s3.ListObjectsV2Input{
		Bucket: &d.m.cfg.Bucket, Prefix: d.m.key(d.path), Delimiter: aws.String("/"), RequestPayer: d.m.cfg.payer()})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, errno(err)
		}
		for _, o := range page.Contents {
			add(strings.TrimPrefix(aws.ToString(o.Key), d.m.cfg.Prefix), syscall.S_IFREG)
		}
		for _, p := range page.CommonPrefixes {
			add(strings.TrimPrefix(aws.ToString(p.Prefix), d.m.cfg.Prefix), syscall.S_IFDIR)
		}
	}
	d.m.mu.Lock()
	for p := range d.m.dirs {
		if parent(p) == d.path {
			add(p, syscall.S_IFDIR)
		}
	}
	for p := range d.m.writing {
		if parent(p) == d.path {
			add(p, syscall.S_IFREG)
		}
	}
	d.m.mu.Unlock()
	entries := make([]fuse.DirEntry, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: found[name]})
	}
	return fs.NewListDirStream(entries), 0
}

// parent is the directory that a path is in: empty, or with a "/" at its end.
func parent(p string) string {
	dir, _ := path.Split(strings.TrimSuffix(p, "/"))
	return dir
}

// Mkdir implements fs.NodeMkdirer: the bucket does not hear of it.
func (d *dirNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if err := d.m.mayChange(ctx); err != 0 {
		return nil, err
	}
	p := d.path + name + "/"
	d.m.mu.Lock()
	d.m.dirs[p] = true
	d.m.mu.Unlock()
	d.m.dirAttr(&out.Attr)
	return d.NewInode(ctx, &dirNode{m: d.m, path: p}, fs.StableAttr{Mode: syscall.S_IFDIR}), 0
}

// Rmdir implements fs.NodeRmdirer, for directories that were made here.
func (d *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	if err := d.m.mayChange(ctx); err != 0 {
		return err
	}
	p := d.path + name + "/"
	keys, err := d.m.some(ctx, p, 2)
	if err != 0 {
		return err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	switch {
	case len(keys) == 1 && keys[0] == *d.m.key(p):
		return syscall.EPERM // an object stands for it
	case len(keys) > 0 || d.m.under(p):
		return syscall.ENOTEMPTY
	case !d.m.dirs[p]:
		return syscall.ENOENT
	}
	delete(d.m.dirs, p)
	return 0
}

// Unlink implements fs.NodeUnlinker: the object is gone at once.
func (d *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if err := d.m.mayChange(ctx); err != 0 {
		return err
	}
	p := d.path + name
	if u := d.m.settled(ctx, p); u != nil {
		return syscall.EPERM // it is being written
	}
	_, err := d.m.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &d.m.cfg.Bucket, Key: d.m.key(p), RequestPayer: d.m.cfg.payer()})
	return errno(err)
}

// Create implements fs.NodeCreater.
func (d *dirNode) Create(ctx context.Context, name string, flags uint32, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if err := d.m.mayChange(ctx); err != 0 {
		return nil, nil, 0, err
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return nil, nil, 0, syscall.EPERM
	}
	p := d.path + name
	u, err := d.m.write(ctx, p)
	if err != 0 {
		return nil, nil, 0, err
	}
	u.attr(&out.Attr)
	return d.child(ctx, name, &fileNode{m: d.m, path: p}, syscall.S_IFREG), u, fuse.FOPEN_DIRECT_IO, 0
}

// spoolFile is where a file is collected while it is written. It has no name.
func (m *Mount) spoolFile() (*os.File, error) {
	f, err := os.CreateTemp(m.spool, "")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
