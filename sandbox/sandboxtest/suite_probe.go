package sandboxtest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

//go:embed probe/main.go
var probeSource []byte

// builtProbe holds the probe for each of the sandbox's architectures.
var builtProbe struct {
	sync.Mutex
	binary map[string][]byte
}

// warm builds the probe ahead, outside of the deadline of a single test: with an
// empty build cache it takes a minute.
func (s *suite) warm(t *testing.T) {
	t.Helper()
	arch, known := s.arch(t, s.shared)
	if _, err := exec.LookPath("go"); known && err == nil {
		buildProbe(t, arch)
	}
}

// arch is the sandbox's architecture in Go's words, if there is a probe for it.
func (s *suite) arch(t *testing.T, sb *sandbox.Sandbox) (arch string, known bool) {
	t.Helper()
	arch, known = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[s.sh(t, sb, "uname -m")]
	return arch, known
}

// probe puts the probe into a sandbox and returns its absolute path.
func (s *suite) probe(t *testing.T, sb *sandbox.Sandbox) string {
	t.Helper()
	arch, known := s.arch(t, sb)
	if !known {
		t.Skip("no probe for the sandbox's architecture")
	}
	fsys := sb.FS(s.context(t))
	path := strings.TrimSuffix(sb.Dir(), "/") + "/probe"
	if _, err := fsys.Stat("probe"); err == nil {
		return path
	}
	if err := fsys.WriteFile("probe", buildProbe(t, arch), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func buildProbe(t *testing.T, arch string) []byte {
	t.Helper()
	builtProbe.Lock()
	defer builtProbe.Unlock()
	if b := builtProbe.binary[arch]; b != nil {
		return b
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not on PATH: the probe cannot be built")
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "probe")
	if err := os.WriteFile(source, probeSource, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, source)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if builtProbe.binary == nil {
		builtProbe.binary = map[string][]byte{}
	}
	builtProbe.binary[arch] = b
	return b
}
