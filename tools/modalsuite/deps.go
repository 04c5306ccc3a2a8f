package main

// What the client's tests import, so that go.mod has it.
import (
	_ "github.com/fxamacker/cbor/v2"
	_ "github.com/golang-jwt/jwt/v5"
	_ "github.com/modal-labs/modal-client/go"
	_ "github.com/onsi/gomega"
	_ "go.uber.org/goleak"
	_ "google.golang.org/grpc/test/bufconn"
)
