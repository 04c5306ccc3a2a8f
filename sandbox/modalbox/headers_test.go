package modalbox_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// apiKey is what no sandbox may see.
const apiKey = "sk-of-nobody-inside"

// api is an HTTPS server at example.com that tells what key it was asked with,
// other than by repeating it.
func api(t *testing.T) (address string, certificate []byte) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		known := "no key"
		if r.Header.Get("Authorization") == "Bearer "+apiKey && len(r.Header.Values("Authorization")) == 1 {
			known = "the key"
		}
		fmt.Fprintf(w, "%s, %s, %s %s%s %s\n", known, r.Header.Get("X-Plain"), r.Method, r.Host, r.URL, body)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // of tunnels that were not used
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
}

// TestHeaderRules: what runs inside uses a key that it cannot find.
func TestHeaderRules(t *testing.T) {
	address, certificate := api(t)
	p := open(t, newClient(t, &modaltest.Options{
		Secrets:     map[string]map[string]string{"api": {"KEY": apiKey}},
		Upstreams:   map[string]string{"example.com": address},
		UpstreamCAs: certificate,
	}))
	sb := create(t, p, &sandbox.Config{
		Network: sandbox.Network{Mode: sandbox.NetworkFull},
		Env:     map[string]string{"PLANTED": "planted-value"},
		HeaderRules: []sandbox.HeaderRule{
			{Domain: "*.example.com", SecretName: "api", Headers: map[string]string{"Authorization": "Bearer $KEY", "X-Plain": "overridden"}},
			{Domain: "example.com", Headers: map[string]string{"x-plain": "$$5"}},
		},
	})
	for name, c := range map[string]struct{ program, script, want string }{
		"curl":   {"curl", `curl -sS -H 'Authorization: Bearer mine' -d body 'https://example.com/a?b=%zz'`, "the key, $5, POST example.com/a?b=%zz body"},
		"curl 1": {"curl", `curl -sS --http1.1 -H 'Authorization: Bearer mine' -H 'authorization: two' -H 'Connection: authorization' https://example.com/`, "the key, $5, GET example.com/ "},
		"python": {"python3", `python3 -c "import urllib.request as u; print(u.urlopen('https://example.com/p').read().decode(), end='')"`, "the key, $5, GET example.com/p "},
		"node":   {"node", `node -e "require('https').get({host:'127.0.0.1',port:3129,method:'CONNECT',path:'example.com:443',protocol:'http:',agent:require('http').globalAgent}).on('connect',(r,s)=>require('https').get({host:'example.com',path:'/n',socket:s,agent:false},r=>r.pipe(process.stdout)))"`, "the key, $5, GET example.com/n "},
		// The certificate is verified by what the environment names and by nothing else.
		"distrust": {"curl", `unset SSL_CERT_FILE CURL_CA_BUNDLE; curl -sS https://example.com/ 2>/dev/null || echo $?`, "60"},
		// The key is for one host, whoever claims to be it.
		"host":  {"curl", `curl -s -o /dev/null -w '%{http_code}\n' -H 'Host: other.example' https://example.com/`, "421"},
		"TRACE": {"curl", `curl -s -o /dev/null -w '%{http_code}\n' -X TRACE https://example.com/`, "405"},
		// The sandbox's network holds for hosts that no rule names.
		"other": {"curl", `curl -s -o /dev/null -w '%{http_connect}\n' https://10.1.2.3/`, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(c.program); err != nil {
				t.Skip(err)
			}
			out, err := sb.Command(testContext(t), "sh", "-c", c.script).CombinedOutput()
			if got := strings.TrimSuffix(string(out), "\n"); got != c.want {
				t.Errorf("%s: %q, %v; want %q", c.script, got, err, c.want)
			}
		})
	}

	// The search finds what is there, in a file and in an environment.
	sh(t, sb, "echo planted-value >/tmp/planted")
	if out := search(t, sb, "planted-valu[e]"); !strings.Contains(out, "/tmp/planted") || !strings.Contains(out, "PLANTED=") {
		t.Errorf("a search found %q only", out)
	}
	if out := search(t, sb, "of-nobody-insid[e]"); out != "" {
		t.Errorf("found the key inside: %s", out)
	}
}

// search looks for a pattern, which does not match itself, in all files inside and
// in the environments and arguments of all processes.
func search(t *testing.T, sb *sandbox.Sandbox, pattern string) string {
	t.Helper()
	const script = `
		env | grep -e "$0"
		cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -ae "$0"
		for d in /* /.[!.]*; do
			case $d in /proc|/sys|/dev|/usr|/lib*|/bin|/sbin) ;; *) grep -rlas -e "$0" "$d" ;; esac
		done
		true`
	out, err := sb.Command(testContext(t), "sh", "-c", script, pattern).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestClaudeWithHeaderRules runs the real CLI against a host on the network whose
// key it does not have.
func TestClaudeWithHeaderRules(t *testing.T) {
	cli := clitest.CLI(t)
	model := claudetest.NewHandler(claudetest.Prompted(), nil)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != apiKey {
			http.Error(w, "no key", http.StatusUnauthorized)
			return
		}
		model.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p := open(t, newClient(t, &modaltest.Options{
		Mounts: cli.Mounts(), Secrets: map[string]map[string]string{"api": {"KEY": apiKey}},
		Upstreams:   map[string]string{"example.com": srv.Listener.Addr().String()},
		UpstreamCAs: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
	}))
	sb := create(t, p, &sandbox.Config{
		Network:     sandbox.Network{Mode: sandbox.NetworkFull},
		HeaderRules: []sandbox.HeaderRule{{Domain: "example.com", SecretName: "api", Headers: map[string]string{"x-api-key": "$KEY"}}},
	})
	st, err := claude.Query(t.Context(), sb, "write hello.txt: from afar", &claude.Options{
		Env:            []string{"ANTHROPIC_BASE_URL=https://example.com", "ANTHROPIC_API_KEY=none"},
		PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if res, err := st.Result(); err != nil || res.Turns < 2 {
		t.Fatalf("got %+v, %v", res, err)
	}
	if got, err := sb.FS(t.Context()).ReadFile("hello.txt"); err != nil || strings.TrimSpace(string(got)) != "from afar" {
		t.Errorf("hello.txt is %q, %v", got, err)
	}
	if out := search(t, sb, "of-nobody-insid[e]"); out != "" {
		t.Errorf("found the key inside: %s", out)
	}
}
