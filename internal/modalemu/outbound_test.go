package modalemu_test

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// replacement sets one header.
func replacement(domain, header, value string, secret *modal.Secret) modal.ExperimentalOutboundPolicyHeaderReplacement {
	return modal.ExperimentalOutboundPolicyHeaderReplacement{Domain: domain, Headers: map[string]string{header: value}, Secret: secret}
}

// TestOutboundPolicy changes one while its sandbox runs, by the client.
func TestOutboundPolicy(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["Key"]) }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	address := srv.Listener.Addr().String()
	policy := modal.NewExperimentalOutboundPolicy()
	p := placeWith(t, &modaltest.Options{
		Secrets: map[string]map[string]string{"api": {"KEY": "value"}}, Upstreams: map[string]string{"example.com": address},
		UpstreamCAs: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
	}, &modal.SandboxCreateParams{
		ExperimentalOutboundPolicy: &policy,
		OutboundCIDRAllowlist:      &modal.Allowlist{Entries: []string{"127.0.0.1/32"}},
	})
	const get = "curl -sS https://example.com/"
	if out, code := p.in(p.sb, get); code == 0 {
		t.Errorf("a host that is neither allowed nor in the policy answered %q", out)
	}
	secret, err := p.client.Secrets.FromName(p.ctx, "api", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[value]", "[$KEY]"} {
		value := map[string]string{"[value]": "$KEY", "[$KEY]": "$$KEY"}[want]
		changed := modal.NewExperimentalOutboundPolicy(replacement("example.com", "Key", value, secret))
		if err := p.sb.ExperimentalUpdateOutboundPolicy(p.ctx, &changed); err != nil {
			t.Fatal(err)
		}
		p.expect(p.sb, get, want)
	}
	// What no rule names goes through untouched, within the network that there is.
	p.expect(p.sb, "curl -sk --noproxy '' -H 'Key: own' https://"+address, "[own]")
	if out, code := p.in(p.sb, "curl -sk --noproxy '' https://127.0.0.2/"); code == 0 {
		t.Errorf("out of the network: %q", out)
	}

	wrong := modal.NewExperimentalOutboundPolicy(replacement("example.com", "Key", "$OTHER", secret))
	if err := p.sb.ExperimentalUpdateOutboundPolicy(p.ctx, &wrong); status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), "value") {
		t.Errorf("a key that is not there: %v", err)
	}
	p.expect(p.sb, get, "[$KEY]")
	without := p.create(nil)
	if err := without.ExperimentalUpdateOutboundPolicy(p.ctx, &policy); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a sandbox without a policy: %v", err)
	}
}

// TestPolicyRefusals asks for what the client would not.
func TestPolicyRefusals(t *testing.T) {
	p := newPlace(t, nil)
	image, err := p.image.Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, ctx := raw(t, p.server)
	def := func(domain, header, value string) *pb.Sandbox {
		return pb.Sandbox_builder{ImageId: image.ImageID, ExperimentalOutboundPolicy: pb.ExperimentalOutboundPolicy_builder{
			HeaderReplacements: []*pb.ExperimentalOutboundPolicy_HeaderReplacement{
				pb.ExperimentalOutboundPolicy_HeaderReplacement_builder{Domain: domain, Headers: map[string]string{header: value}}.Build(),
			}}.Build()}.Build()
	}
	blocked, domains := def("example.com", "A", "b"), def("example.com", "A", "b")
	blocked.SetBlockNetwork(true)
	domains.SetNetworkAccess(pb.NetworkAccess_builder{NetworkAccessType: pb.NetworkAccess_ALLOWLIST, AllowedDomains: []string{"example.com"}}.Build())
	for name, def := range map[string]*pb.Sandbox{
		"blocked": blocked, "domains": domains, "domain": def("a b", "A", "b"), "label": def("com", "A", "b"),
		"host": def("*", "Host", "b"), "line": def("*", "A", "b\nc"), "key": def("*", "A", "$KEY"),
	} {
		req := pb.SandboxCreateV2Request_builder{AppId: p.app.AppID, Definition: def}.Build()
		if _, err := pb.NewModalClientClient(conn).SandboxCreateV2(ctx, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}
