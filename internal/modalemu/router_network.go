package modalemu

import (
	"context"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// TaskSetOutboundPolicy implements the service, for sandboxes that were made with
// such a policy, be it an empty one.
func (r *router) TaskSetOutboundPolicy(ctx context.Context, req *pb.TaskSetExperimentalOutboundPolicyRequest) (*pb.TaskSetExperimentalOutboundPolicyResponse, error) {
	c, err := r.running(ctx, req.GetTaskId(), "")
	if err != nil {
		return nil, err
	}
	if c.policy == nil {
		return nil, status.Error(codes.FailedPrecondition, "the sandbox was not created with an ExperimentalOutboundPolicy")
	}
	rules, err := r.server.rules(req.GetExperimentalOutboundPolicy())
	if err != nil {
		return nil, err
	}
	c.policy.SetRules(rules)
	return &pb.TaskSetExperimentalOutboundPolicyResponse{}, nil
}
