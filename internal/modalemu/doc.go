// Package modalemu is a server that speaks Modal's protocol and runs Modal's
// sandboxes on this machine: the two gRPC services that Modal's official Go
// client talks to, over the driver of package sandbox/localbox. It is for
// developing and testing without an account, and listens on loopback only.
//
// The services are thin: they map messages and status codes, and keep names and
// tags. What runs is a driver's; package sandbox/modalbox/modaltest starts the
// server inside a test.
package modalemu
