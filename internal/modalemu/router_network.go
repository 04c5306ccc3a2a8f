package modalemu

import (
	"context"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// TaskSetNetworkAccess implements the service.
func (r *router) TaskSetNetworkAccess(ctx context.Context, req *pb.TaskSetNetworkAccessRequest) (*pb.TaskSetNetworkAccessResponse, error) {
	c, err := r.running(ctx, req.GetTaskId(), "")
	if err != nil {
		return nil, err
	}
	access := req.GetNetworkAccess()
	if access.GetNetworkAccessType() != pb.NetworkAccess_ALLOWLIST {
		return nil, invalid("only an allowlist can replace the network access of a running sandbox")
	}
	n, err := network(access, false)
	if err != nil {
		return nil, err
	}
	s, ok := c.box.(driver.NetworkSetter)
	if !ok {
		return nil, refused("the network access of a running sandbox cannot be changed here")
	}
	if err := s.SetNetwork(ctx, n); err != nil {
		return nil, c.inside(err)
	}
	return &pb.TaskSetNetworkAccessResponse{}, nil
}

// TaskSetOutboundPolicy implements the service: a sandbox with such a policy,
// which alone can change it, is refused when it is made.
func (r *router) TaskSetOutboundPolicy(ctx context.Context, req *pb.TaskSetExperimentalOutboundPolicyRequest) (*pb.TaskSetExperimentalOutboundPolicyResponse, error) {
	if _, err := r.running(ctx, req.GetTaskId(), ""); err != nil {
		return nil, err
	}
	return nil, invalid("the sandbox was not created with an ExperimentalOutboundPolicy")
}
