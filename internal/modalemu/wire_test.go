package modalemu_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// in runs a script in a sandbox, and gives what it printed and its exit code.
func (p *place) in(sb *modal.Sandbox, script string) (string, int) {
	p.t.Helper()
	cp, err := sb.Exec(p.ctx, []string{"/bin/sh", "-c", "exec 2>&1; " + script}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := io.ReadAll(cp.Stdout)
	if err != nil {
		p.t.Fatal(err)
	}
	code, err := cp.Wait(p.ctx, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), code
}

func (p *place) expect(sb *modal.Sandbox, script, want string) {
	p.t.Helper()
	if got, _ := p.in(sb, script); got != want {
		p.t.Errorf("%s: %q, want %q", script, got, want)
	}
}

func (p *place) volume() *modal.Volume {
	p.t.Helper()
	v, err := p.client.Volumes.Ephemeral(p.ctx, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(v.CloseEphemeral)
	return v
}

func (p *place) with(target string, v *modal.Volume, params modal.SandboxCreateParams) *modal.Sandbox {
	p.t.Helper()
	params.Volumes = map[string]*modal.Volume{target: v}
	return p.create(&params)
}

func options(readOnly bool, sub string) *modal.VolumeMountOptionsParams {
	return &modal.VolumeMountOptionsParams{ReadOnly: &readOnly, SubPath: &sub}
}

func TestVolumes(t *testing.T) {
	p := newPlace(t, nil)
	v := p.volume()
	a, b := p.with("/vol", v, modal.SandboxCreateParams{}), p.with("/vol", v, modal.SandboxCreateParams{})
	p.expect(a, "umask 077; mkdir /vol/d && echo one > /vol/d/f && ln /vol/d/f /vol/g && ln -s /etc/passwd /vol/l && echo ok", "ok")
	p.expect(b, "ls /vol", "")
	for _, sb := range []*modal.Sandbox{a, b} {
		if err := sb.ReloadVolumes(p.ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.expect(b, "cat /vol/d/f /vol/g; stat -c '%a %h %u' /vol/d/f; stat -c %a /vol/d; readlink /vol/l", "one\none\n600 2 0\n700\n/etc/passwd")

	// A read-only mount shows what only the owner may read, and takes nothing.
	r := p.with("/ro", v.WithMountOptions(options(true, "d")), modal.SandboxCreateParams{})
	p.expect(r, "cat /ro/f", "one")
	for _, script := range []string{"echo x > /ro/new", "echo x >> /ro/f", "rm /ro/f", "chmod 777 /ro/f"} {
		if out, code := p.in(r, script); code == 0 || !strings.Contains(out, "Read-only file system") {
			t.Errorf("%s: %d %s", script, code, out)
		}
	}

	// A sandbox that ends has committed, whatever ended it.
	p.expect(b, "echo two > /vol/d/f; rm /vol/g; echo ok", "ok")
	if _, err := b.Terminate(p.ctx, nil); err != nil {
		t.Fatal(err)
	}
	w := p.with("/vol", v.WithMountOptions(options(false, "/made/here")), modal.SandboxCreateParams{Command: []string{"sh", "-c", "echo by > /vol/command"}})
	if code, err := w.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Fatalf("wait: %d, %v", code, err)
	}
	c := p.with("/vol", v, modal.SandboxCreateParams{})
	p.expect(c, "cd /vol; find . -type f | sort; cat d/f made/here/command", "./d/f\n./made/here/command\ntwo\nby")
}

func TestVolumesOutliveTheServerByName(t *testing.T) {
	state := t.TempDir()
	var ephemeral string
	for round := range 2 {
		server, err := modaltest.Start(&modaltest.Options{State: state})
		if err != nil {
			t.Fatal(err)
		}
		client, err := server.Client()
		if err != nil {
			t.Fatal(err)
		}
		p := &place{t: t, ctx: t.Context(), server: server, client: client, image: client.Images.FromRegistry("alpine:3.21", nil)}
		if p.app, err = client.Apps.FromName(p.ctx, "tests", &modal.AppFromNameParams{CreateIfMissing: true}); err != nil {
			t.Fatal(err)
		}
		named, err := client.Volumes.FromName(p.ctx, "named", &modal.VolumeFromNameParams{CreateIfMissing: true})
		if err != nil {
			t.Fatal(err)
		}
		nameless := p.volume()
		sb := p.create(&modal.SandboxCreateParams{Volumes: map[string]*modal.Volume{"/named": named, "/nameless": nameless}})
		if round == 0 {
			p.expect(sb, "echo kept > /named/f; echo lost > /nameless/f; echo ok", "ok")
			ephemeral = filepath.Join(state, "files", "volumes", nameless.VolumeID)
		} else {
			p.expect(sb, "cat /named/f; ls /nameless", "kept")
			if _, err := os.Stat(ephemeral); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the nameless volume's files are there: %v", err)
			}
		}
		_ = sb.Detach()
		client.Close()
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVolumeRefusals(t *testing.T) {
	p := newPlace(t, nil)
	v := p.volume()
	for _, sub := range []string{"..", "a/../../b"} {
		params := &modal.SandboxCreateParams{Volumes: map[string]*modal.Volume{"/vol": v.WithMountOptions(options(false, sub))}}
		if _, err := p.client.Sandboxes.Create(p.ctx, p.app, p.image, params); status.Code(err) != codes.InvalidArgument {
			t.Errorf("sub path %s: %v", sub, err)
		}
	}
}

// serving gives a sandbox in which an HTTP server lists /srv.
func serving(t *testing.T, params modal.SandboxCreateParams) (*place, *modal.Sandbox) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the server inside needs python3")
	}
	p := newPlace(t, nil)
	params.Command = []string{"sh", "-c", "mkdir -p /srv/www && cd /srv/www && echo served > file && exec python3 -m http.server 8000"}
	return p, p.create(&params)
}

func (p *place) get(url string, header http.Header) (int, string) {
	p.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.server.TunnelCA())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = header
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestTunnels(t *testing.T) {
	p, sb := serving(t, modal.SandboxCreateParams{EncryptedPorts: []int{8000}, UnencryptedPorts: []int{8001}, H2Ports: []int{8002}})
	tunnels, err := sb.Tunnels(p.ctx, 10*time.Second, nil)
	if err != nil || len(tunnels) != 3 {
		t.Fatalf("tunnels: %v, %v", tunnels, err)
	}
	if code, body := p.get(tunnels[8000].URL()+"/file", nil); code != 200 || body != "served\n" {
		t.Errorf("by TLS: %d %s", code, body)
	}
	if _, _, err := tunnels[8000].TCPSocket(); err == nil {
		t.Error("an encrypted tunnel has a TCP socket")
	}
	host, port, err := tunnels[8001].TCPSocket()
	if err != nil {
		t.Fatal(err)
	}
	if host, port := tunnels[8001].TLSSocket(); host == "" || port == 0 {
		t.Error("an unencrypted tunnel has no TLS socket beside it")
	}
	_, err = sb.Exec(p.ctx, []string{"python3", "-c", "import socket\ns=socket.create_server(('127.0.0.1', 8001))\nc,_=s.accept()\nc.sendall(b'got '+c.recv(9))\nc.close()"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	if got, err := io.ReadAll(c); string(got) != "got hello" {
		t.Errorf("by TCP: %q, %v", got, err)
	}
	if _, err := sb.Terminate(p.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port))); err == nil {
		c.Close()
		t.Error("the tunnel is there after the sandbox")
	}
}

func TestConnectToken(t *testing.T) {
	p, sb := serving(t, modal.SandboxCreateParams{})
	creds, err := sb.CreateConnectToken(p.ctx, &modal.SandboxCreateConnectTokenParams{Port: 8000, UserMetadata: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := p.get(creds.URL+"/file", http.Header{"Authorization": {"Bearer " + creds.Token}}); code != 200 || body != "served\n" {
		t.Errorf("with the token: %d %s", code, body)
	}
	if code, body := p.get(creds.URL+"/file?_modal_connect_token="+creds.Token, nil); code != 200 || body != "served\n" {
		t.Errorf("with the token in the query: %d %s", code, body)
	}
	if code, body := p.get(creds.URL+"/file", nil); code != 401 {
		t.Errorf("without a token: %d %s", code, body)
	}
	other, err := p.sb.CreateConnectToken(p.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := p.get(creds.URL+"/file", http.Header{"Authorization": {"Bearer " + other.Token}}); code != 401 {
		t.Errorf("with another sandbox's token: %d %s", code, body)
	}
	if _, err := sb.CreateConnectToken(p.ctx, &modal.SandboxCreateConnectTokenParams{UserMetadata: "two\r\nlines"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("metadata that is no header: %v", err)
	}
	if _, err := sb.Terminate(p.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if code, body := p.get(creds.URL+"/file", http.Header{"Authorization": {"Bearer " + creds.Token}}); code != 0 {
		t.Errorf("after the end: %d %s", code, body)
	}
}

func TestInboundAllowlist(t *testing.T) {
	p, sb := serving(t, modal.SandboxCreateParams{EncryptedPorts: []int{8000}, InboundCIDRAllowlist: []string{"203.0.113.0/24"}})
	tunnels, err := sb.Tunnels(p.ctx, 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := p.get(tunnels[8000].URL()+"/file", nil); code != 0 {
		t.Errorf("from elsewhere: %d %s", code, body)
	}
	_, err = p.client.Sandboxes.Create(p.ctx, p.app, p.image, &modal.SandboxCreateParams{EncryptedPorts: []int{80}, InboundCIDRAllowlist: []string{"everywhere"}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad CIDR: %v", err)
	}
}
