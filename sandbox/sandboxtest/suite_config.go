package sandboxtest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) configTests() []test {
	return []test{
		{"Env", s.testEnv},
		{"EnvHasNothingOfTheHost", s.testEnvClean},
		{"EnvHasPathAndHome", s.testEnvUsual},
		{"SecretsAreSeenInsideOnly", s.testSecrets},
		{"Dir", s.testDir},
		{"MountsAreReadOnly", s.testMounts},
		{"MountOfNothing", s.testMountMissing},
		{"UnknownImage", s.testUnknownImage},
	}
}

func (s *suite) testEnv(t *testing.T) {
	values := map[string]string{
		"PLAIN": "value", "EMPTY": "", "SPACED": " a  b ", "LINES": "one\ntwo\n",
		"QUOTES": `'"$(x)\`, "EQUALS": "a=b=c", "UNICODE": "grün 🌱", "BYTES": "\xff\xfe", "OVER": "sandbox",
	}
	sb := s.create(t, func(c *sandbox.Config) { c.Env = values })
	cmd := sb.Command(s.context(t), "env", "-0")
	cmd.Env = []string{"OVER=first", "OVER=command", "MORE=yes"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kv := range strings.Split(string(out), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			if _, twice := got[k]; twice {
				t.Errorf("%s is there twice", k)
			}
			got[k] = v
		}
	}
	for k, v := range values {
		if k != "OVER" {
			equal(t, k, got[k], v)
		}
	}
	equal(t, "OVER", got["OVER"], "command")
	equal(t, "MORE", got["MORE"], "yes")
	equal(t, "OVER of the next command", s.sh(t, sb, `echo "$OVER$MORE"`), "sandbox")
}

func (s *suite) testEnvClean(t *testing.T) {
	t.Setenv("SANDBOXTEST_HOST_VALUE", "seen-from-outside")
	sb := s.create(t, nil)
	out := s.sh(t, sb, `env; cat /proc/[0-9]*/environ 2>/dev/null; true`)
	if strings.Contains(out, "seen-from-outside") {
		t.Errorf("the host's environment is inside:\n%s", out)
	}
}

func (s *suite) testEnvUsual(t *testing.T) {
	out := s.sh(t, s.shared, `test -n "$PATH" && test -d "$HOME" && touch "$HOME/x" && rm "$HOME/x" && f=$(mktemp) && rm "$f" && echo fine`)
	equal(t, "PATH, HOME and /tmp", out, "fine")
}

func (s *suite) testSecrets(t *testing.T) {
	const value = "sk-do-not-show-5f2c"
	config := s.config(func(c *sandbox.Config) { c.Secrets = map[string]sandbox.Secret{"TOKEN": sandbox.NewSecret(value)} })
	sb, err := s.provider.Create(s.context(t), config)
	if err != nil {
		t.Fatal(err)
	}
	s.endWith(t, sb)
	equal(t, "TOKEN inside", s.sh(t, sb, `echo "$TOKEN"`), value)
	info, err := sb.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := []any{info, *info, sb, s.provider, config, *config, s.list(t, s.provider, nil)[sb.ID()]}
	cmd := sb.Command(s.context(t), "sh", "-c", "exit 3")
	seen = append(seen, cmd, cmd.Run(), sb.Command(s.context(t), "/no/such/program").Run())
	for _, v := range seen {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) {
				t.Errorf("%s of a %T shows the secret", verb, v)
			}
		}
	}
	encoded, err := json.Marshal(info)
	if err != nil || strings.Contains(string(encoded), value) {
		t.Errorf("Info as JSON: %s, %v", encoded, err)
	}
}

func (s *suite) testDir(t *testing.T) {
	sb := s.createWith(t, Dir, func(c *sandbox.Config) { c.Dir = "/tmp" })
	equal(t, "Sandbox.Dir", sb.Dir(), "/tmp")
	equal(t, "pwd", s.sh(t, sb, "pwd -P"), "/tmp")
	if err := sb.FS(s.context(t)).MkdirAll("a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, want string }{
		{"/", "/"}, {"/tmp/a/b", "/tmp/a/b"}, {"a", "/tmp/a"}, {"a/../a/b", "/tmp/a/b"},
	} {
		cmd := sb.Command(s.context(t), "pwd", "-P")
		cmd.Dir = c.dir
		out, err := cmd.Output()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("Dir %q: %q, %v; want %q", c.dir, out, err, c.want)
		}
	}
}

func (s *suite) testMounts(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"note": 0o644, "sub/tool": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho mounted\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "sub")} {
		if err := os.Chmod(d, 0o755); err != nil { // the sandbox's user may be another
			t.Fatal(err)
		}
	}
	sb := s.createWith(t, Mounts, func(c *sandbox.Config) {
		c.Mounts = []sandbox.Mount{
			{Source: dir, Target: "/mnt/tools"},
			{Source: filepath.Join(dir, "note"), Target: "/opt/deep/note"},
		}
	})
	equal(t, "a program in a mounted directory", s.sh(t, sb, "/mnt/tools/sub/tool"), "mounted")
	equal(t, "a mounted file", s.sh(t, sb, "sh /opt/deep/note"), "mounted")
	for _, script := range []string{
		"echo x > /mnt/tools/new", "echo x >> /mnt/tools/note", "echo x >> /opt/deep/note",
		"rm -f /mnt/tools/note", "chmod 777 /mnt/tools/sub", "mv /mnt/tools/note /mnt/tools/other",
	} {
		if err := sb.Command(s.context(t), "sh", "-c", script).Run(); err == nil {
			t.Errorf("%s: worked on a read-only mount", script)
		}
	}
	if err := sb.FSAt(s.context(t), "/mnt/tools").WriteFile("note", nil, 0o644); err == nil {
		t.Error("FS wrote to a read-only mount")
	}
	if err := sb.FSAt(s.context(t), "/").RemoveAll("mnt/tools/sub"); err == nil {
		t.Error("FS removed from a read-only mount")
	}
	if err := os.WriteFile(filepath.Join(dir, "later"), []byte("news"), 0o644); err != nil {
		t.Fatal(err)
	}
	equal(t, "a file that came later", s.sh(t, sb, "cat /mnt/tools/later"), "news")
}

func (s *suite) testMountMissing(t *testing.T) {
	_, err := s.provider.Create(s.context(t), s.config(func(c *sandbox.Config) {
		c.Mounts = []sandbox.Mount{{Source: filepath.Join(t.TempDir(), "nothing"), Target: "/mnt/nothing"}}
	}))
	if err == nil {
		t.Fatal("a mount whose source does not exist was accepted")
	}
	if !strings.Contains(err.Error(), "nothing") && !strings.Contains(err.Error(), "Mounts") {
		t.Errorf("the error names neither the source nor the setting: %v", err)
	}
}

func (s *suite) testUnknownImage(t *testing.T) {
	for _, name := range []string{"Snapshot", "Base"} {
		image := map[string]sandbox.Image{
			"Base":     {Base: "sandboxtest/no-such-image:0"},
			"Snapshot": {Snapshot: "sandboxtest-no-such-snapshot"},
		}[name]
		sb, err := s.provider.Create(s.context(t), s.config(func(c *sandbox.Config) { c.Image = image }))
		if err != nil {
			continue
		}
		s.endWith(t, sb)
		if name == "Base" {
			s.lacks(t, UnknownBase, "any Image.Base is accepted")
		}
		t.Errorf("Image.%s that does not exist was accepted", name)
	}
}
