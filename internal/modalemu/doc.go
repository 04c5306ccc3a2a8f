// Package modalemu is a server that speaks Modal's protocol and runs Modal's
// sandboxes on this machine: the two gRPC services that Modal's official Go
// client talks to, over the driver of package sandbox/localbox. It is for
// developing and testing without an account, and listens on loopback only.
package modalemu

import (
	_ "github.com/modal-labs/modal-client/go"                   // the client it serves
	_ "github.com/modal-labs/modal-client/go/proto/modal_proto" // the services
	_ "google.golang.org/grpc"
	_ "google.golang.org/protobuf/proto"
)
