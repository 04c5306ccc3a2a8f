package modalemu

import (
	"context"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

type stubVolumes struct{}

func (stubVolumes) mount(ctx context.Context, volumeID string, m *pb.VolumeMount) (driver.Mount, volumeMount, error) {
	return driver.Mount{}, nil, refused("volumes")
}
func (stubVolumes) remove(string) error { return nil }
func (stubVolumes) close() error        { return nil }

func newVolumeFiles(*Server) (volumeFiles, error) { return stubVolumes{}, nil }

func (s *Server) openTunnels(ctx context.Context, sb *sandbox, ports []*pb.PortSpec, inbound []string) (tunnels, error) {
	return nil, refused("tunnels")
}
func (s *Server) connectURL(sb *sandbox) (string, error) { return "", refused("connect") }
