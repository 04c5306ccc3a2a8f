package localbox_test

import (
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// hostRoot makes a sandbox with this machine's programs as a root of its own.
func hostRoot(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	return create(t, open(t, stateDir(t)), &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
}

// shell runs a script and returns what it wrote, without the last newline.
func shell(t *testing.T, sb *sandbox.Sandbox, script string) string {
	t.Helper()
	out, err := sb.Command(testContext(t), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestHostRoot(t *testing.T) {
	sb := hostRoot(t)
	for _, c := range []struct{ script, want string }{
		{"id -u; pwd; echo $HOME", "0\n/workspace\n/root"},
		{"echo hi > /usr/local/bin/x; rm /usr/bin/env; ! test -e /usr/bin/env; cat /usr/local/bin/x", "hi"},
		{"chmod 600 /etc/ssl/openssl.cnf; stat -c %a /etc/ssl/openssl.cnf", "600"},
		{"touch /opt/f; chown 5:7 /opt/f; stat -c %u:%g /opt/f", "5:7"},
		{"mv /usr/share/doc /usr/share/cod; test -d /usr/share/cod; ! test -e /usr/share/doc", ""},
		{"ls /home /root /opt", "/home:\n\n/opt:\nf\n\n/root:"},
		{"echo more >> /etc/hosts; tail -n 1 /etc/hosts; cat /etc/hostname", "more\nsandbox"},
		{"sed -n 's/^NoNewPrivs:.//p' /proc/self/status", "1"},
	} {
		if got := shell(t, sb, c.script); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
}
