package modaltest_test

import (
	"io"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// t is the *testing.T of the test that these lines stand in.
var t *testing.T

func ExampleNewClient() {
	client := modaltest.NewClient(t)
	app, err := client.Apps.FromName(t.Context(), "my-app", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	image := client.Images.FromRegistry("debian:12", nil)
	sb, err := client.Sandboxes.Create(t.Context(), app, image, nil) // ended with the test
	if err != nil {
		t.Fatal(err)
	}
	p, err := sb.Exec(t.Context(), []string{"echo", "hello"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(p.Stdout)
	if err != nil || string(out) != "hello\n" {
		t.Errorf("echo: %q, %v", out, err)
	}
}

func ExampleServer_Inject() {
	server := modaltest.New(t, &modaltest.Options{Secrets: map[string]map[string]string{"aws": {"KEY": "value"}}})
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// The client gets over this by itself.
	server.Inject(modaltest.Fault{Method: "SecretGetOrCreate", Code: codes.Unavailable, Times: 2})
	if _, err := client.Secrets.FromName(t.Context(), "aws", nil); err != nil {
		t.Error(err)
	}
	// Every output stream breaks once after 64 KiB.
	server.Inject(modaltest.Fault{Method: "TaskExecStdioRead", DropAfter: 64 << 10, Delay: time.Millisecond})
}
