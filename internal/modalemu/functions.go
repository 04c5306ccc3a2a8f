package modalemu

import (
	"context"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FunctionGet implements the service: nothing is ever deployed here.
func (s *Server) FunctionGet(_ context.Context, req *pb.FunctionGetRequest) (*pb.FunctionGetResponse, error) {
	return nil, status.Errorf(codes.NotFound, "Function '%s' not found in App '%s': the emulator runs sandboxes only", req.GetObjectTag(), req.GetAppName())
}
