package modalemu

import (
	"context"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// volumeFiles keeps the files of volumes. wire_volume.go has the one there is.
type volumeFiles interface {
	// mount makes a copy of a volume for a container. The caller closes it.
	mount(ctx context.Context, volumeID string, m *pb.VolumeMount) (driver.Mount, volumeMount, error)
	// remove removes the files of a volume; one that has none is no error.
	remove(volumeID string) error
	// close waits until everything is written.
	close() error
}

// ephemeralLife is how long a nameless volume lives without a heartbeat; the
// client sends one every 300 seconds.
const ephemeralLife = 15 * time.Minute

// VolumeGetOrCreate implements the service.
func (s *Server) VolumeGetOrCreate(_ context.Context, req *pb.VolumeGetOrCreateRequest) (*pb.VolumeGetOrCreateResponse, error) {
	var vol *volumeRecord
	err := s.store.change(func(r *records) (err error) {
		vol, err = r.getOrCreateVolume(req)
		return err
	})
	if err != nil {
		return nil, err
	}
	version := pb.VolumeFsVersion(vol.Version)
	return pb.VolumeGetOrCreateResponse_builder{
		VolumeId: vol.ID, Version: version,
		Metadata: pb.VolumeMetadata_builder{Name: vol.Name, Version: version}.Build(),
	}.Build(), nil
}

func (r *records) getOrCreateVolume(req *pb.VolumeGetOrCreateRequest) (*volumeRecord, error) {
	name, kind := req.GetDeploymentName(), req.GetObjectCreationType()
	if kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_EPHEMERAL {
		return r.addVolume("", req), nil
	}
	vol := r.volume(name, req.GetEnvironmentName())
	switch {
	case vol == nil && kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED:
		return nil, status.Errorf(codes.NotFound, "Volume '%s' not found in environment '%s'", name, environmentName(req.GetEnvironmentName()))
	case vol == nil:
		if err := checkName("Volume", name); err != nil {
			return nil, err
		}
		return r.addVolume(name, req), nil
	case kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
		return nil, status.Errorf(codes.AlreadyExists, "Volume '%s' already exists", name)
	}
	return vol, nil
}

// volume finds a volume by its name, or nil.
func (r *records) volume(name, environment string) *volumeRecord {
	for _, vol := range r.Volumes {
		if vol.Name == name && name != "" && vol.Environment == environmentName(environment) {
			return vol
		}
	}
	return nil
}

func (r *records) addVolume(name string, req *pb.VolumeGetOrCreateRequest) *volumeRecord {
	vol := &volumeRecord{
		ID: newID("vo"), Name: name, Environment: r.environment(req.GetEnvironmentName()).Name,
		Created: time.Now(), Version: int32(req.GetVersion()), Heartbeat: time.Now(),
	}
	r.Volumes[vol.ID] = vol
	return vol
}

// VolumeHeartbeat implements the service.
func (s *Server) VolumeHeartbeat(_ context.Context, req *pb.VolumeHeartbeatRequest) (*emptypb.Empty, error) {
	found := false
	s.store.read(func(r *records) {
		if vol := r.Volumes[req.GetVolumeId()]; vol != nil {
			vol.Heartbeat, found = time.Now(), true
		}
	})
	if !found {
		return nil, status.Errorf(codes.NotFound, "Volume '%s' not found", req.GetVolumeId())
	}
	return &emptypb.Empty{}, nil
}

// VolumeDelete implements the service.
func (s *Server) VolumeDelete(_ context.Context, req *pb.VolumeDeleteRequest) (*emptypb.Empty, error) {
	err := s.store.change(func(r *records) error {
		if r.Volumes[req.GetVolumeId()] == nil {
			return status.Errorf(codes.NotFound, "Volume '%s' not found", req.GetVolumeId())
		}
		delete(r.Volumes, req.GetVolumeId())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.volumes.remove(req.GetVolumeId())
}

// hasVolume refuses an id that is none of a volume.
func (s *Server) hasVolume(id string) error {
	found := false
	s.store.read(func(r *records) { found = r.Volumes[id] != nil })
	if !found {
		return status.Errorf(codes.NotFound, "Volume '%s' not found", id)
	}
	return nil
}

// expireVolumes removes nameless volumes whose heartbeats have stopped, and that
// no sandbox uses.
func (s *Server) expireVolumes(now time.Time) error {
	inUse := s.boxes.volumesInUse()
	var gone []string
	s.store.read(func(r *records) {
		for id, vol := range r.Volumes {
			if vol.Name == "" && now.Sub(vol.Heartbeat) > ephemeralLife && !inUse[id] {
				gone = append(gone, id)
				delete(r.Volumes, id)
			}
		}
	})
	for _, id := range gone {
		if err := s.volumes.remove(id); err != nil {
			return err
		}
	}
	return nil
}
