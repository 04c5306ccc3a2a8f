package modalemu

import (
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// router is the service that a sandbox's commands and files are reached by.
type router struct {
	pb.UnimplementedTaskCommandRouterServer
	server *Server
}

func newRouter(s *Server) *router { return &router{server: s} }
