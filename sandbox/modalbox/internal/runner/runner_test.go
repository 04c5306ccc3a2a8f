//go:build linux && amd64

package runner_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/internal/runner"
)

// program is the runner in a file.
func program(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runner")
	if err := os.WriteFile(name, []byte(runner.Binary()), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// run gives what the runner and its program say.
func run(t *testing.T, env []string, args ...string) (out, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Env = env
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("typed"), &o, &e
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

const mark = "4503599627370497"

func TestUsage(t *testing.T) {
	if _, _, code := run(t, nil); code != runner.Usage {
		t.Errorf("without arguments: status %d", code)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		want, dir, cancel, program string
		env                        []string
	}{
		{want: "d", dir: none, program: "true"},
		{want: "D", dir: plain, program: "true"},
		{want: "n", dir: "/", program: "no-such-program"},
		{want: "n", dir: "/", program: none},
		{want: "n", dir: "/", program: plain + "/below"},
		{want: "n", dir: "/", program: ""},
		{want: "n", dir: "/", program: "true", env: []string{"PATH=" + dir}},
		{want: "n", dir: "/", program: "plain", env: []string{"PATH=" + dir}},
		{want: "p", dir: "/", program: plain},
		{want: "p", dir: "/", program: dir},
		{want: "x", dir: "/", cancel: plain, program: "true"},
		{want: "s", dir: "/", program: "true", env: []string{"VIVARIUM_RAW=A=b"}},
	} {
		if c.cancel == "" {
			c.cancel = none
		}
		out, _, code := run(t, c.env, c.dir, "", mark, c.cancel, none, c.program)
		if out != c.want+"\n" || code != 0 {
			t.Errorf("%+v: said %q, status %d", c, out, code)
		}
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a refusal left a file")
	}
}

// first takes the line of the runner's off.
func first(t *testing.T, out string) string {
	t.Helper()
	line, rest, ok := strings.Cut(out, "\n")
	if _, err := strconv.Atoi(strings.TrimPrefix(line, "k")); !ok || line[0] != 'k' || err != nil {
		t.Fatalf("the runner said %q", out)
	}
	return rest
}

func TestExecutes(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("echo $0 $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/nowhere::/usr/bin:/bin", "PWD=/wrong", "KEPT=yes"}
	for _, c := range []struct {
		flags     string
		args      []string
		out, errs string
	}{
		{"", []string{"sh", "-c", `echo "$1|$2"; echo e >&2; cat`, "sh", "a  b", "\xff"}, "a  b|\xff\ntyped", "e\n"},
		{"i", []string{"cat"}, "", ""},
		{"o", []string{"sh", "-c", "echo gone; echo e >&2"}, "", "e\n"},
		{"m", []string{"sh", "-c", "echo e >&2"}, "e\n", ""},
		{"iom", []string{"sh", "-c", "cat; echo gone >&2"}, "", ""},
		{"", []string{"sh", "-c", `echo "$PWD $KEPT"`}, dir + " yes\n", ""},
		{"", []string{script, "one"}, script + " one\n", ""},
		{"", []string{"./script", "two"}, "./script two\n", ""},
		{"", []string{"script", "three"}, "script three\n", ""}, // the empty part of PATH
		{"", []string{"grep", "-c", "^Max file locks *" + mark + " *" + mark, "/proc/self/limits"}, "1\n", ""},
	} {
		out, errs, code := run(t, env, append([]string{dir, c.flags, mark, "/none", "/none"}, c.args...)...)
		if rest := first(t, out); rest != c.out || errs != c.errs || code != 0 {
			t.Errorf("%q %q: printed %q and %q, status %d", c.flags, c.args, rest, errs, code)
		}
	}
}

func TestKeepsItsProcess(t *testing.T) {
	out, _, _ := run(t, nil, "/", "", mark, "/none", "/none", "sh", "-c", "echo $$")
	said, own, _ := strings.Cut(out, "\n")
	if "k"+strings.TrimSpace(own) != said {
		t.Errorf("the runner said %q, its program is process %q", said, own)
	}
}

func TestFailsLate(t *testing.T) {
	dir := t.TempDir()
	script, fail := filepath.Join(dir, "script"), filepath.Join(dir, "fail")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, code := run(t, nil, "/", "", mark, "/none", fail, script)
	said, err := os.ReadFile(fail)
	if code != 127 || err != nil || string(said) != "127\n" {
		t.Errorf("status %d, file %q, %v", code, said, err)
	}
}

// FuzzArguments: whatever it is given, it ends, and by no signal.
func FuzzArguments(f *testing.F) {
	f.Add("/", "iom", mark, "/none", "true", "/bin")
	f.Add("", "t99999999999x-1", "", "", "/", strings.Repeat("x", 5000)+":"+strings.Repeat("y:", 100))
	f.Fuzz(func(t *testing.T, dir, flags, mark, cancel, program, path string) {
		for _, s := range []string{dir, flags, mark, cancel, program, path} {
			if strings.ContainsRune(s, 0) || len(s) > 100_000 {
				t.Skip("no argument can be like that")
			}
		}
		if strings.Contains(program, "/") {
			program = "/none" + program // run nothing of this machine's
		}
		if _, _, code := run(t, []string{"PATH=/none/" + strings.ReplaceAll(path, ":", ":/none/")}, dir, flags, mark, cancel, "/none/x", program); code < 0 {
			t.Errorf("ended by a signal")
		}
	})
}
