package modalemu

import (
	"context"
	"strconv"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// noImage is what a call with an unknown image gets.
func noImage(id string) error {
	return status.Errorf(codes.NotFound, "Image '%s' not found", id)
}

var built = pb.GenericResult_builder{Status: pb.GenericResult_GENERIC_STATUS_SUCCESS}.Build()

// ImageGetOrCreate implements the service: it builds an image unless the same
// was built before. A build that takes long is followed by ImageJoinStreaming.
func (s *Server) ImageGetOrCreate(ctx context.Context, req *pb.ImageGetOrCreateRequest) (*pb.ImageGetOrCreateResponse, error) {
	if _, err := s.app(req.GetAppId()); req.GetAppId() != "" && err != nil {
		return nil, err
	}
	r, err := s.recipe(req.GetImage())
	if err != nil {
		return nil, err
	}
	id := newID("im")
	if !req.GetForceBuild() {
		if img := s.imageOf(r.digest); img != nil {
			return pb.ImageGetOrCreateResponse_builder{ImageId: img.ID, Result: built, Metadata: img.metadata()}.Build(), nil
		}
	}
	r.build.Force = req.GetForceBuild() || req.GetIgnoreCache()
	b, fresh := s.builds.begin(r.digest, id)
	if fresh {
		s.running.Go(func() { s.runBuild(b, r) })
	}
	resp := pb.ImageGetOrCreateResponse_builder{ImageId: b.imageID}
	if b.await(ctx, buildPatience) {
		resp.Result = b.result
		if img := s.store.image(b.imageID); img != nil {
			resp.Metadata = img.metadata()
		}
	}
	return resp.Build(), nil
}

func (s *Server) runBuild(b *build, r *recipe) {
	ctx, cancel := context.WithTimeout(s.ctx, buildWait)
	defer cancel()
	r.build.Log = b
	img, err := s.build(ctx, r)
	if err == nil {
		img.ID = b.imageID
		err = s.keepImage(img)
	}
	s.builds.end(r.digest, b, buildResult(err))
}

// buildResult is what a client is told of a build.
func buildResult(err error) *pb.GenericResult {
	switch status.Code(toStatus(err)) {
	case codes.OK:
		return built
	case codes.DeadlineExceeded:
		return failure(pb.GenericResult_GENERIC_STATUS_TIMEOUT, 1, "the build took too long")
	case codes.Canceled:
		return failure(pb.GenericResult_GENERIC_STATUS_TERMINATED, 1, "the emulator is closing")
	}
	// What a build says is meant for who wrote it: the command that failed and
	// what it printed.
	return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, 1, err.Error())
}

// imageOf finds the image that was made from a recipe, or nil.
func (s *Server) imageOf(digest string) *imageRecord {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for _, img := range s.store.Images {
		if img.Recipe == digest && !img.expired(time.Now()) {
			return img
		}
	}
	return nil
}

// keepImage adds an image; an older one of the same recipe stays, but is not
// found by it any more.
func (s *Server) keepImage(img *imageRecord) error {
	return s.store.change(func(r *records) error {
		for id, old := range r.Images {
			if img.Recipe != "" && old.Recipe == img.Recipe {
				changed := *old
				changed.Recipe = ""
				r.Images[id] = &changed
			}
		}
		r.Images[img.ID] = img
		return nil
	})
}

// driverImage is what a sandbox of the image starts from.
func (r *imageRecord) driverImage() driver.Image {
	if r.Driver != "" {
		return driver.Image{Snapshot: r.Driver}
	}
	return driver.Image{Base: r.Base}
}

func (r *imageRecord) metadata() *pb.ImageMetadata {
	version := builderVersion
	m := pb.ImageMetadata_builder{ImageBuilderVersion: &version}
	if r.Dir != "" {
		m.Workdir = &r.Dir
	}
	return m.Build()
}

// ImageJoinStreaming implements the service: a build's log and its result.
func (s *Server) ImageJoinStreaming(req *pb.ImageJoinStreamingRequest, stream grpc.ServerStreamingServer[pb.ImageJoinStreamingResponse]) error {
	b := s.builds.get(req.GetImageId())
	if b == nil {
		img := s.store.image(req.GetImageId())
		if img == nil {
			return noImage(req.GetImageId())
		}
		return stream.Send(pb.ImageJoinStreamingResponse_builder{Result: built, Metadata: img.metadata(), Eof: true}.Build())
	}
	number, _, _ := strings.Cut(req.GetLastEntryId(), "-")
	next, err := strconv.Atoi("0" + number)
	if err != nil {
		return invalid("no such log entry: %q", req.GetLastEntryId())
	}
	ctx, cancel := context.WithTimeout(stream.Context(), max(pollTime(req.GetTimeout()), time.Second))
	defer cancel()
	for {
		lines, more := b.since(next)
		if len(lines) > 0 {
			next += len(lines)
			if err := stream.Send(pb.ImageJoinStreamingResponse_builder{TaskLogs: lines, EntryId: strconv.Itoa(next) + "-0"}.Build()); err != nil {
				return err
			}
			continue
		}
		select {
		case <-b.done:
			if lines, _ := b.since(next); len(lines) > 0 {
				continue
			}
			return stream.Send(pb.ImageJoinStreamingResponse_builder{Result: b.result, Eof: true}.Build())
		case <-more:
		case <-ctx.Done():
			return stream.Context().Err()
		}
	}
}

// ImageFromId implements the service.
func (s *Server) ImageFromId(_ context.Context, req *pb.ImageFromIdRequest) (*pb.ImageFromIdResponse, error) {
	img := s.store.image(req.GetImageId())
	if img == nil {
		return nil, noImage(req.GetImageId())
	}
	return pb.ImageFromIdResponse_builder{ImageId: img.ID, Metadata: img.metadata()}.Build(), nil
}

// tagKey is what a name that was published is kept by. Names look like
// "[[workspace/]environment/]name[:tag]".
func tagKey(tag, environment string) string {
	name := tag
	if cut := strings.LastIndexByte(tag, '/'); cut >= 0 {
		name = tag[cut+1:]
		environment = tag[strings.LastIndexByte(tag[:cut], '/')+1 : cut]
	}
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return environmentName(environment) + "/" + name
}

// ImageGetByTag implements the service.
func (s *Server) ImageGetByTag(_ context.Context, req *pb.ImageGetByTagRequest) (*pb.ImageGetByTagResponse, error) {
	var id string
	s.store.read(func(r *records) { id = r.ImageTags[tagKey(req.GetTag(), req.GetEnvironmentName())] })
	img := s.store.image(id)
	if img == nil {
		return nil, noImage(req.GetTag())
	}
	return pb.ImageGetByTagResponse_builder{ImageId: img.ID}.Build(), nil
}

// ImagePublish implements the service.
func (s *Server) ImagePublish(_ context.Context, req *pb.ImagePublishRequest) (*pb.ImagePublishResponse, error) {
	if req.GetTag() == "" {
		return nil, invalid("an image is published under a name")
	}
	if s.store.image(req.GetImageId()) == nil {
		return nil, noImage(req.GetImageId())
	}
	return &pb.ImagePublishResponse{}, s.store.change(func(r *records) error {
		r.ImageTags[tagKey(req.GetTag(), req.GetEnvironmentName())] = req.GetImageId()
		return nil
	})
}

// ImageNameDelete implements the service.
func (s *Server) ImageNameDelete(_ context.Context, req *pb.ImageNameDeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.store.change(func(r *records) error {
		key := tagKey(req.GetTag(), "")
		if r.ImageTags[key] == "" {
			return noImage(req.GetTag())
		}
		delete(r.ImageTags, key)
		return nil
	})
}

// ImageDelete implements the service. Sandboxes made from the image go on, and
// so do images made from it.
func (s *Server) ImageDelete(ctx context.Context, req *pb.ImageDeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.dropImage(ctx, req.GetImageId())
}

func (s *Server) dropImage(ctx context.Context, id string) error {
	snapshot := ""
	err := s.store.change(func(r *records) error {
		img := r.Images[id]
		if img == nil {
			return noImage(id)
		}
		delete(r.Images, id)
		for tag, to := range r.ImageTags {
			if to == id {
				delete(r.ImageTags, tag)
			}
		}
		if img.Recipe == "" && img.Driver != "" && !r.uses(img.Driver) {
			snapshot = img.Driver
		}
		return nil
	})
	if d, ok := s.provider.(driver.SnapshotDeleter); ok && err == nil && snapshot != "" {
		return d.DeleteSnapshot(ctx, snapshot)
	}
	return err
}

// uses reports whether an image is the driver's of that id.
func (r *records) uses(driverID string) bool {
	for _, img := range r.Images {
		if img.Driver == driverID {
			return true
		}
	}
	return false
}

// expireImages removes the images whose time is over.
func (s *Server) expireImages(ctx context.Context, now time.Time) error {
	var gone []string
	s.store.read(func(r *records) {
		for id, img := range r.Images {
			if img.expired(now) {
				gone = append(gone, id)
			}
		}
	})
	for _, id := range gone {
		if err := s.dropImage(ctx, id); err != nil && status.Code(toStatus(err)) != codes.NotFound {
			return err
		}
	}
	return nil
}

// addSnapshot keeps what a driver has saved as an image, for ttl seconds; a
// negative one is for ever. from is the image that the container was made of,
// nil for the image of a directory.
func (s *Server) addSnapshot(driverID string, from *imageRecord, ttl int64, keyDigest []byte) (*imageRecord, error) {
	img := &imageRecord{ID: newID("im"), Driver: driverID, Created: time.Now(), Mountable: from == nil, KeyDigest: keyDigest}
	if from != nil {
		img.Env, img.Dir, img.Entrypoint = from.Env, from.Dir, from.Entrypoint
	}
	if ttl >= 0 {
		img.Expires = img.Created.Add(time.Duration(ttl) * time.Second)
	}
	return img, s.keepImage(img)
}
