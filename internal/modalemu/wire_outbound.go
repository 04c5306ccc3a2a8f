package modalemu

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/authority"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/outbound"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// policyProxy is where the proxy that sets headers listens inside. Nothing
	// runs in the sandbox before it does.
	policyProxy = "127.0.0.1:3129"
	// wayOut is the driver's own proxy, which holds the sandbox to its network.
	wayOut = "127.0.0.1:3128"
	// trustDir is where a sandbox with a policy finds whom to trust: ca.pem is the
	// emulator's authority, bundle.pem that and those of the image.
	trustDir = "/__modal/certificates"
	// policyDial bounds a connection to a host.
	policyDial = 30 * time.Second
	// maxBundle bounds an image's certificates, and maxRefusal a proxy's answer.
	maxBundle  = 16 << 20
	maxRefusal = 64 << 10
	// maxReplacements is how many headers the client lets a policy set.
	maxReplacements = 25
)

// policyEnv makes programs inside send HTTPS by the proxy, and trust it.
func policyEnv() map[string]string {
	env := map[string]string{"NODE_EXTRA_CA_CERTS": trustDir + "/ca.pem"}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		env[name] = "http://" + policyProxy
	}
	for _, name := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE"} {
		env[name] = trustDir + "/bundle.pem"
	}
	return env
}

// bundles are where systems keep the certificates of those they trust.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
	"/etc/ssl/ca-bundle.pem",             // openSUSE
	"/etc/ssl/cert.pem",                  // Alpine, without its package
}

// rules gives the header rules of a policy, with the values of its secrets. No
// error has one of them.
func (s *Server) rules(policy *pb.ExperimentalOutboundPolicy) ([]outbound.Rule, error) {
	rules, total := []outbound.Rule{}, 0
	for _, r := range policy.GetHeaderReplacements() {
		if r.GetDomain() != "*" && (!domainName.MatchString(strings.ToLower(r.GetDomain())) || !strings.Contains(r.GetDomain(), ".")) {
			return nil, invalid("Invalid domain: %q", r.GetDomain())
		}
		if len(r.GetHeaders()) == 0 {
			return nil, invalid("Headers must contain at least one header")
		}
		var values map[string]string
		if id := r.GetSecretId(); id != "" {
			var err error
			if values, err = s.secretValues(id); err != nil {
				return nil, err
			}
		}
		rule := outbound.Rule{Domain: r.GetDomain(), Headers: make(map[string]string)}
		for _, name := range names(r.GetHeaders()) {
			value, err := outbound.Expand(r.GetHeaders()[name], values)
			if err != nil {
				return nil, invalid("header %q for %s: %v", name, r.GetDomain(), err)
			}
			rule.Headers[name] = value
		}
		if err := rule.Check(); err != nil {
			return nil, invalid("headers for %s: %v", r.GetDomain(), err)
		}
		total += len(rule.Headers)
		rules = append(rules, rule)
	}
	if total > maxReplacements {
		return nil, invalid("Outbound policy cannot have more than %d header replacements", maxReplacements)
	}
	return rules, nil
}

// openUpstreams makes who vouches for the hosts of policies, and checks what
// Options say of them.
func (s *Server) openUpstreams() (err error) {
	if s.policyAuthority, err = authority.New("Modal emulator's outbound policies"); err != nil {
		return err
	}
	for host, address := range s.opts.Upstreams {
		if _, _, err := net.SplitHostPort(address); err != nil || host != strings.ToLower(host) || !domainName.MatchString(host) {
			return fmt.Errorf("upstream %q at %q: want a lower-case host, and an address with a port", host, address)
		}
	}
	if len(s.opts.UpstreamCAs) == 0 {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(s.opts.UpstreamCAs) {
		return errors.New("UpstreamCAs have no certificate")
	}
	s.upstreamRoots = pool
	return nil
}

// trustMount makes the directory that shows a container whom to trust.
func (s *Server) trustMount(c *container) (driver.Mount, error) {
	var err error
	if c.trust, err = os.MkdirTemp(c.task.dir, "trust-"); err == nil {
		err = os.Chmod(c.trust, 0o755)
	}
	if err == nil {
		err = writeForAll(filepath.Join(c.trust, "ca.pem"), s.policyAuthority.PEM())
	}
	return driver.Mount{Source: c.trust, Target: trustDir}, err
}

// writeForAll writes a file that everybody may read, whatever the umask.
func writeForAll(name string, data []byte) error {
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(name, 0o644)
}

// writeBundle completes it, once the image's own certificates can be read. given
// is where the client's environment says that they are.
func (s *Server) writeBundle(ctx context.Context, c *container, given string) error {
	all := bytes.Clone(s.policyAuthority.PEM())
	for _, name := range append([]string{given}, bundles...) {
		if !path.IsAbs(name) {
			continue
		}
		own, err := readInside(ctx, c.box, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s of the image: %w", name, err)
		}
		all = append(append(own, '\n'), all...)
		break
	}
	return writeForAll(filepath.Join(c.trust, "bundle.pem"), all)
}

func readInside(ctx context.Context, box driver.Sandbox, name string) ([]byte, error) {
	f, err := box.Files().OpenFile(ctx, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if len(all) > maxBundle {
		err = fmt.Errorf("it has more than %d bytes", maxBundle)
	}
	return all, err
}

// openPolicy starts the proxy that sets headers.
func (s *Server) openPolicy(ctx context.Context, c *container, p *plan) error {
	listener, ok := c.box.(driver.Listener)
	dialer, can := c.box.(driver.Dialer)
	if !ok || !can {
		return refused("outbound policies are not available")
	}
	if err := s.writeBundle(ctx, c, p.bundle); err != nil {
		return err
	}
	l, err := listener.Listen(ctx, policyProxy)
	if err != nil {
		return err
	}
	proxy := outbound.New(p.rules, &outbound.Options{
		Authority: s.policyAuthority, Roots: s.upstreamRoots,
		Dial: func(ctx context.Context, target string, intercepted bool) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, policyDial)
			defer cancel()
			host, _, _ := net.SplitHostPort(target)
			if address := s.opts.Upstreams[host]; address != "" && intercepted {
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			}
			return dialOut(ctx, dialer, target)
		},
	})
	c.policy, c.served = proxy, make(chan struct{})
	go func() {
		defer close(c.served)
		_ = proxy.Serve(l)
	}()
	return nil
}

// closePolicy ends it.
func (c *container) closePolicy() {
	if c.policy != nil {
		_ = c.policy.Close() // of a listener that may be gone with the sandbox
		<-c.served
	}
}

// dialOut gets a tunnel from the driver's proxy, which is where the sandbox's
// network is enforced.
func dialOut(ctx context.Context, box driver.Dialer, target string) (_ net.Conn, err error) {
	conn, err := box.Dial(ctx, wayOut)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			conn.Close()
		}
	}()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return nil, err
	}
	// What comes after the answer is the far side's, and stays in the connection.
	resp, err := http.ReadResponse(bufio.NewReader(oneByte{conn}), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		return nil, errors.Join(&outbound.Refusal{Status: resp.StatusCode, Header: resp.Header, Body: text}, err)
	}
	return conn, nil
}

// oneByte reads no further than it is asked to, whoever buffers it.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(len(b), 1)]) }
