package modalemu

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"path"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// snapshotWait bounds the making of an image; clients wait for less.
	snapshotWait = 10 * time.Minute
	// mountWait bounds the showing of one.
	mountWait = 2 * time.Minute
	// defaultTTL is the life of an image for which the client names none.
	defaultTTL = 30 * 24 * time.Hour
	// The lengths of keys that the client accepts.
	minKey, maxKey = 16, 512
)

// expiry is when an image ends that is made now; zero is never.
func expiry(ttl int64) (time.Time, error) {
	switch {
	case ttl == -1:
		return time.Time{}, nil
	case ttl <= 0 || ttl > int64(100*365*24*time.Hour/time.Second):
		return time.Time{}, invalid("ttl_seconds must be positive, or -1 for no expiry; got %d", ttl)
	}
	return time.Now().Add(time.Duration(ttl) * time.Second), nil
}

// keyDigest is what is kept of a client's key to know it again; nil for none.
func (s *Server) keyDigest(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, nil
	}
	if len(key) < minKey || len(key) > maxKey {
		return nil, invalid("the encryption key must be between %d and %d bytes, got %d bytes", minKey, maxKey, len(key))
	}
	var secret []byte
	s.store.read(func(r *records) { secret = r.BuildKey })
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("customer-supplied encryption key\x00"))
	h.Write(key)
	return h.Sum(nil), nil
}

// snapshotOrder is an image that a client wants of a container.
type snapshotOrder struct {
	taskID, containerID, id string
	ttl                     int64
	key                     []byte
	take                    func(context.Context, driver.Sandbox) (string, error)
}

// snapshot makes an image once, however often its id comes.
func (r *router) snapshot(ctx context.Context, o *snapshotOrder) (string, error) {
	c, err := r.container(ctx, o.taskID, o.containerID)
	if err != nil {
		return "", err
	}
	expires, err := expiry(o.ttl)
	if err != nil {
		return "", err
	}
	digest, err := r.server.keyDigest(o.key)
	if err != nil {
		return "", err
	}
	take := func(ctx context.Context) (string, error) {
		if c.hasEnded() {
			return "", c.gone()
		}
		ctx, cancel := context.WithTimeout(ctx, snapshotWait)
		defer cancel()
		defer c.task.busy()()
		id, err := o.take(ctx, c.box)
		if err != nil {
			return "", c.inside(err)
		}
		// What is encrypted can only be mounted, with the key.
		img := &imageRecord{ID: newID("im"), Driver: id, Created: time.Now(), Expires: expires,
			KeyDigest: digest, Mountable: digest != nil}
		return img.ID, r.server.store.change(func(records *records) error {
			records.Images[img.ID] = img
			return nil
		})
	}
	if o.id == "" {
		return take(ctx)
	}
	return r.snapshots.do(ctx, c.task.id+" "+o.id, take)
}

// TaskSnapshotFilesystem implements the service.
func (r *router) TaskSnapshotFilesystem(ctx context.Context, req *pb.TaskSnapshotFilesystemRequest) (*pb.TaskSnapshotFilesystemResponse, error) {
	if !req.HasTtlSeconds() {
		return nil, invalid("ttl_seconds is missing")
	}
	id, err := r.snapshot(ctx, &snapshotOrder{
		taskID: req.GetTaskId(), containerID: req.GetContainerId(), id: req.GetSnapshotId(),
		ttl: req.GetTtlSeconds(), key: req.GetCustomerSuppliedEncryptionKey(),
		take: func(ctx context.Context, box driver.Sandbox) (string, error) {
			s, ok := box.(driver.Snapshotter)
			if !ok {
				return "", refused("a sandbox cannot be saved here")
			}
			return s.Snapshot(ctx)
		},
	})
	if err != nil {
		return nil, err
	}
	return pb.TaskSnapshotFilesystemResponse_builder{ImageId: id}.Build(), nil
}

// TaskSnapshotDirectory implements the service.
func (r *router) TaskSnapshotDirectory(ctx context.Context, req *pb.TaskSnapshotDirectoryRequest) (*pb.TaskSnapshotDirectoryResponse, error) {
	dir, err := directory(req.GetPath())
	if err != nil {
		return nil, err
	}
	ttl := int64(defaultTTL / time.Second)
	if req.HasTtlSeconds() {
		ttl = req.GetTtlSeconds()
	}
	id, err := r.snapshot(ctx, &snapshotOrder{
		taskID: req.GetTaskId(), containerID: req.GetContainerId(), id: req.GetSnapshotId(),
		ttl: ttl, key: req.GetCustomerSuppliedEncryptionKey(),
		take: func(ctx context.Context, box driver.Sandbox) (string, error) {
			s, ok := box.(driver.DirSnapshotter)
			if !ok {
				return "", refused("a directory cannot be saved here")
			}
			return s.SnapshotDir(ctx, dir)
		},
	})
	if err != nil {
		return nil, err
	}
	return pb.TaskSnapshotDirectoryResponse_builder{ImageId: id}.Build(), nil
}

// directory is a path as the driver wants it.
func directory(raw []byte) (string, error) {
	dir := string(raw)
	if !path.IsAbs(dir) {
		return "", invalid("path must be absolute, got: %q", dir)
	}
	return path.Clean(dir), nil
}

// TaskMountDirectory implements the service.
func (r *router) TaskMountDirectory(ctx context.Context, req *pb.TaskMountDirectoryRequest) (*emptypb.Empty, error) {
	c, err := r.running(ctx, req.GetTaskId(), req.GetContainerId())
	if err != nil {
		return nil, err
	}
	dir, err := directory(req.GetPath())
	if err != nil {
		return nil, err
	}
	id, err := r.mountable(req.GetImageId(), req.GetCustomerSuppliedEncryptionKey())
	if err != nil {
		return nil, err
	}
	m, ok := c.box.(driver.ImageMounter)
	if !ok {
		return nil, refused("an image cannot be mounted here")
	}
	// A mount that is broken off halfway would be one that nobody knows of.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mountWait)
	defer cancel()
	return &emptypb.Empty{}, c.inside(m.MountImage(ctx, dir, id))
}

// mountable is the driver's id of an image that key opens; "" stays "".
func (r *router) mountable(id string, key []byte) (string, error) {
	digest, err := r.server.keyDigest(key)
	if err != nil || id == "" {
		return "", err
	}
	img := r.server.store.image(id)
	switch {
	case img == nil:
		return "", status.Errorf(codes.NotFound, "Image '%s' not found", id)
	case len(img.KeyDigest) > 0 && len(digest) == 0:
		return "", invalid("Image '%s' is encrypted with a customer-supplied key, which is needed to mount it", id)
	case !img.opens(digest):
		return "", invalid("the encryption key is not the one of image '%s'", id)
	}
	return img.Driver, nil
}

// TaskUnmountDirectory implements the service.
func (r *router) TaskUnmountDirectory(ctx context.Context, req *pb.TaskUnmountDirectoryRequest) (*emptypb.Empty, error) {
	c, err := r.running(ctx, req.GetTaskId(), req.GetContainerId())
	if err != nil {
		return nil, err
	}
	dir, err := directory(req.GetPath())
	if err != nil {
		return nil, err
	}
	m, ok := c.box.(driver.ImageMounter)
	if !ok {
		return nil, refused("an image cannot be mounted here")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mountWait)
	defer cancel()
	return &emptypb.Empty{}, c.inside(m.UnmountImage(ctx, dir))
}

// TaskSnapshotMemory implements the service.
func (r *router) TaskSnapshotMemory(ctx context.Context, req *pb.TaskSnapshotMemoryRequest) (*pb.TaskSnapshotMemoryResponse, error) {
	if _, err := r.task(ctx, req.GetTaskId()); err != nil {
		return nil, err
	}
	return nil, noMemory()
}

// TaskReloadVolumes implements the service.
func (r *router) TaskReloadVolumes(ctx context.Context, req *pb.TaskReloadVolumesRequest) (*pb.TaskReloadVolumesResponse, error) {
	c, err := r.running(ctx, req.GetTaskId(), req.GetContainerId())
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, v := range c.volumes {
		errs = append(errs, v.Reload(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, c.inside(err)
	}
	return &pb.TaskReloadVolumesResponse{}, nil
}
