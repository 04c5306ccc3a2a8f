//go:build linux

package localbox_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// programs are what the test's image has: enough for a shell script.
var programs = []string{"sh", "cat", "ls", "id", "mkdir", "chmod", "env", "rm", "stat", "sleep", "touch"}

// smallRoot packs programs of this machine, with the libraries they need, into
// an image that has nothing else.
func smallRoot(t *testing.T) []byte {
	t.Helper()
	files := map[string]string{}
	for _, p := range programs {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Skipf("this machine has no %s to make an image of", p)
		}
		files["bin/"+p] = path
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			t.Skipf("ldd %s, to make an image of it: %v", path, err)
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files[word[1:]] = word
			}
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(body)
	}
	for name, from := range files {
		body, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		put(tar.Header{Name: name, Mode: 0o755}, body)
	}
	put(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nguest:x:1234:1234::/home/guest:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nguest:x:1234:\n"))
	put(tar.Header{Name: "etc/version", Mode: 0o644}, []byte("1\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// hub is a registry.
type hub struct {
	*httptest.Server
	user, password string
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if h.user != "" && (user != h.user || password != h.password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		h.Close()
		remote.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return h
}

// push stores an image and returns its name.
func (h *hub) push(t *testing.T, tag string, cfg v1.Config, layers ...[]byte) string {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, l := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Config = runtime.GOARCH, "linux", cfg
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	full := strings.TrimPrefix(h.URL, "http://") + "/" + tag
	ref, err := name.ParseReference(full)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return full
}

// build builds an image, and returns what was logged.
func build(t *testing.T, p *sandbox.Provider, b *driver.Build) (*driver.ImageInfo, string, error) {
	t.Helper()
	var out bytes.Buffer
	b.Log = &out
	info, err := p.Driver().(driver.ImageBuilder).BuildImage(testContext(t), b)
	return info, out.String(), err
}

func mustBuild(t *testing.T, p *sandbox.Provider, b *driver.Build) (*driver.ImageInfo, string) {
	t.Helper()
	info, out, err := build(t, p, b)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return info, out
}

// show runs a script in a sandbox of an image.
func show(t *testing.T, p *sandbox.Provider, id, script string) string {
	t.Helper()
	sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Snapshot: id}})
	return sh(t, sb, script)
}

func TestImagePulledAndBuiltOn(t *testing.T) {
	h, p := newHub(t), open(t, stateDir(t))
	base := h.push(t, "base:1", v1.Config{Env: []string{"PATH=/bin", "FROM_BASE=yes"}, WorkingDir: "/etc"}, smallRoot(t))
	sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: base}})
	if got := sh(t, sb, `echo $FROM_BASE $(cat version) $PATH; ls /usr/bin 2>/dev/null; id -u`); got != "yes 1 /bin\n0" {
		t.Errorf("in the base: %q", got)
	}
	user := "guest"
	if os.Geteuid() != 0 {
		user = "root" // who runs this is the only user inside
	}
	built := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: base, Commands: []string{
		"ENV A=one B=${FROM_BASE}", "WORKDIR /srv/app", `RUN echo "$A $B $(id -u) $PWD" > made; rm /etc/version; chmod 600 /etc/group`,
		"ENV C=$A.$B", "RUN [\"/bin/touch\", \"second\"]", "WORKDIR data", "USER " + user,
	}}})
	got := sh(t, built, `echo $A $C; pwd; id -un; cat ../made; ls ..; ls -d /etc/version 2>/dev/null; stat -c %a /etc/group`)
	if want := "one one.yes\n/srv/app/data\n" + user + "\none yes 0 /srv/app\ndata\nmade\nsecond\n600"; got != want {
		t.Errorf("built:\n%s\nwant:\n%s", got, want)
	}
	if got := sh(t, sb, "cat /etc/version"); got != "1" {
		t.Errorf("the base has changed: %q", got)
	}
}

func TestImageOnHostRoot(t *testing.T) {
	p := open(t, stateDir(t))
	b := func() *driver.Build {
		return &driver.Build{Image: driver.Image{Base: localbox.HostRoot, Commands: []string{
			"ARG WHAT=nothing", "RUN <<EOF\nset -e\necho \"echo $WHAT $EXTRA\" > /usr/local/bin/said\nchmod +x /usr/local/bin/said\nEOF",
			"COPY <<README <<'RAW' /opt/doc/\nsaid $WHAT\nREADME\nraw $WHAT\nRAW", `CMD ["said"]`,
		}}, Env: []string{"EXTRA=more", "WHAT=this"}}
	}
	info, out := mustBuild(t, p, b())
	if !slices.Equal(info.Command, []string{"said"}) {
		t.Errorf("CMD %q", info.Command)
	}
	if got := show(t, p, info.ID, "said; cat /opt/doc/README /opt/doc/RAW"); got != "this more\nsaid this\nraw $WHAT" {
		t.Errorf("%q; the log is\n%s", got, out)
	}
	again, out := mustBuild(t, p, b())
	if again.ID != info.ID || !strings.Contains(out, "as before") {
		t.Errorf("built twice: %s and %s\n%s", info.ID, again.ID, out)
	}
	other := b()
	other.Env[0] = "EXTRA=else"
	if changed, _ := mustBuild(t, p, other); changed.ID == info.ID {
		t.Error("another environment gave the same image")
	}
	forced := b()
	forced.Force = true
	if fresh, out := mustBuild(t, p, forced); fresh.ID == info.ID || strings.Contains(out, "as before") {
		t.Errorf("not built again:\n%s", out)
	}
	if got, err := p.Driver().(driver.ImageInspector).Image(testContext(t), info.ID); err != nil || !slices.Equal(got.Command, info.Command) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := p.Driver().(driver.ImageInspector).Image(testContext(t), "img-00000000000000000000"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("unknown image: %v", err)
	}
}

func TestImageStagesAndCopies(t *testing.T) {
	h, p := newHub(t), open(t, stateDir(t))
	base := h.push(t, "base:1", v1.Config{Env: []string{"PATH=/bin"}}, smallRoot(t))
	other, _ := mustBuild(t, p, &driver.Build{Image: driver.Image{Base: base, Commands: []string{
		"RUN mkdir -p /out/sub /home/guest; echo x > /out/sub/x; echo y > /out/y; chmod 640 /out/y; ln -s y /out/link 2>/dev/null || touch /out/link"}}})
	info, _ := mustBuild(t, p, &driver.Build{
		Images: map[string]string{"tools": other.ID},
		Image: driver.Image{Commands: []string{
			"ARG REF=" + base, "FROM $REF AS one", "RUN echo one > /one", "FROM ${REF}",
			"COPY --from=one /one /from/stage", "COPY --from=0 /on? /from/index", "WORKDIR /from", "COPY --from=tools /out dir",
			"COPY --from=tools --chown=guest:0 --chmod=600 /out/* files/",
		}}})
	got := show(t, p, info.ID, "cat stage index dir/sub/x dir/y files/y; stat -c '%a' dir/y files/y; ls files; ls /one 2>/dev/null || true")
	if want := "one\none\nx\ny\ny\n640\n600\nlink\nx\ny"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if os.Geteuid() == 0 {
		if got := show(t, p, info.ID, "stat -c %u:%g /from/dir/y /from/files/y"); got != "0:0\n1234:0" {
			t.Errorf("owners %q", got)
		}
	}
}

func TestImageRunFails(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	_, out, err := build(t, p, &driver.Build{Image: driver.Image{Base: localbox.HostRoot,
		Commands: []string{"RUN true", "RUN echo here is why; exit 7"}}})
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "here is why") ||
		!strings.Contains(err.Error(), "RUN echo") || !strings.Contains(out, "here is why") {
		t.Errorf("%v\n%s", err, out)
	}
	_, _, err = build(t, p, &driver.Build{Image: driver.Image{Base: localbox.HostRoot, Commands: []string{`RUN ["/no/such"]`}}})
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	log := &canceller{when: "begun", cancel: cancel}
	_, err = p.Driver().(driver.ImageBuilder).BuildImage(ctx, &driver.Build{Log: log,
		Image: driver.Image{Base: localbox.HostRoot, Commands: []string{"RUN echo begun; sleep 1000"}}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for info, err := range p.List(testContext(t), nil) {
		t.Errorf("left running: %v, %v", info, err)
	}
}

// canceller cancels when it is told a word.
type canceller struct {
	when   string
	cancel func()
}

func (c *canceller) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.when+"\n")) {
		c.cancel()
	}
	return len(p), nil
}

// A secret is in the environment of RUN, and nowhere that stays.
func TestImageSecrets(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	const secret = "hunter2-and-more"
	b := func(v string) *driver.Build {
		return &driver.Build{Secrets: driver.Secrets{"TOKEN=" + v},
			Image: driver.Image{Base: localbox.HostRoot, Commands: []string{`RUN echo "${TOKEN:-unset}"; echo ${#TOKEN} > /opt/length`}}}
	}
	info, out := mustBuild(t, p, b(secret))
	if got := show(t, p, info.ID, `cat /opt/length; echo "<$TOKEN>"`); got != fmt.Sprintf("%d\n<>", len(secret)) {
		t.Errorf("%q", got)
	}
	if strings.Contains(out, secret) || !strings.Contains(out, "[redacted]") {
		t.Errorf("log:\n%s", out)
	}
	fails := b(secret)
	fails.Image.Commands = []string{"RUN echo $TOKEN; false"}
	if _, _, err := build(t, p, fails); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error: %v", err)
	}
	if shorter, _ := mustBuild(t, p, b("other")); show(t, p, shorter.ID, "cat /opt/length") != "5" {
		t.Error("an image of another secret was found")
	}
	err := filepath.WalkDir(filepath.Join(dir, "images"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the secret is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// What is built at once in two providers is built once.
func TestImageBuildsAtOnce(t *testing.T) {
	dir := stateDir(t)
	open(t, dir)
	var wg sync.WaitGroup
	ids := make([]string, 6)
	ran := make([]bool, len(ids))
	for i := range ids {
		p := open(t, dir)
		wg.Go(func() {
			info, out, err := build(t, p, &driver.Build{Image: driver.Image{Base: localbox.HostRoot, Commands: []string{"RUN echo ran > /opt/x; echo it ran"}}})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i], ran[i] = info.ID, strings.Contains(out, "\nit ran\n")
		})
	}
	wg.Wait()
	if n := len(slices.Compact(slices.Sorted(slices.Values(ids)))); n != 1 {
		t.Errorf("%d images: %q", n, ids)
	}
	if n := len(slices.DeleteFunc(ran, func(b bool) bool { return !b })); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

func TestImageRefusals(t *testing.T) {
	h, p := newHub(t), open(t, stateDir(t))
	small := h.push(t, "small:1", v1.Config{}, smallRoot(t))
	h.user, h.password = "me", "pass-word"
	for _, tt := range []struct {
		image driver.Image
		want  error
		text  string
	}{
		{driver.Image{Commands: []string{"COPY . /app"}}, errors.ErrUnsupported, "Sandbox.FS"},
		{driver.Image{Commands: []string{"ADD https://example.com/x /x"}}, errors.ErrUnsupported, "ADD"},
		{driver.Image{Commands: []string{"RUN --mount=type=cache,target=/x true"}}, errors.ErrUnsupported, "--mount"},
		{driver.Image{Commands: []string{"RUN --network=host true"}}, errors.ErrUnsupported, "network"},
		{driver.Image{Commands: []string{"FROM --platform=linux/s390x x"}}, errors.ErrUnsupported, "platform"},
		{driver.Image{Commands: []string{"apt-get install jq"}}, driver.ErrInvalid, "apt-get"},
		{driver.Image{Base: "a", Commands: []string{"FROM b"}}, driver.ErrInvalid, "FROM b"},
		{driver.Image{Commands: []string{"ENV A=${B"}}, driver.ErrInvalid, "ENV"},
		{driver.Image{Commands: []string{"COPY --from=" + localbox.HostRoot + " /usr/no/such /x"}}, driver.ErrNotFound, "/usr/no/such"},
		{driver.Image{Snapshot: "snap-00000000000000000000", Commands: []string{"RUN true"}}, errors.ErrUnsupported, localbox.HostRoot},
		{driver.Image{Snapshot: "img-00000000000000000000"}, driver.ErrNotFound, ""},
		{driver.Image{Base: small}, driver.ErrUnauthenticated, "Image.Registry"},
		{driver.Image{Base: "127.0.0.1:1/x"}, driver.ErrUnavailable, "cannot be reached"},
	} {
		_, err := p.Driver().Create(testContext(t), &driver.Config{Image: tt.image})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v: %v; want %v with %q", tt.image, err, tt.want, tt.text)
		}
	}
	b, err := p.Driver().Create(testContext(t), &driver.Config{Image: driver.Image{Base: small,
		Registry: &driver.Registry{Credentials: driver.Secrets{"REGISTRY_USERNAME=me", "REGISTRY_PASSWORD=pass-word"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Terminate(testContext(t)), b.Close()); err != nil {
		t.Error(err)
	}
}

// dieBuilding begins a RUN and is killed over it.
func dieBuilding() int {
	p, err := localbox.Open(&localbox.Options{Dir: os.Getenv("LOCALBOX_TEST_DIR")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, err = p.Driver().(driver.ImageBuilder).BuildImage(context.Background(), &driver.Build{Log: os.Stdout, Image: driver.Image{
		Base: localbox.HostRoot, Commands: []string{dyingCommand}}})
	fmt.Fprintln(os.Stderr, "not killed", err)
	return 1
}

const dyingCommand = `RUN echo begun; sleep 1000`

func init() { childRoles["die-building"] = dieBuilding }

// A build that is killed leaves a sandbox that the next one ends: when it first
// looks at the images, or when it wants to run the same.
func TestImageBuilderKilled(t *testing.T) {
	for name, used := range map[string]bool{"new provider": false, "old provider": true} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			p := open(t, dir)
			if used {
				mustBuild(t, p, &driver.Build{Image: driver.Image{Base: localbox.HostRoot}})
			}
			killBuilder(t, dir)
			buildAgain(t, p)
		})
	}
}

// killBuilder kills a process while it builds.
func killBuilder(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LOCALBOX_TEST_ROLE=die-building", "LOCALBOX_TEST_DIR="+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	buf := make([]byte, 1024)
	for !bytes.Contains(seen, []byte("\nbegun\n")) {
		n, err := stdout.Read(buf)
		if seen = append(seen, buf[:n]...); err != nil {
			t.Fatalf("%v; %s", err, seen)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func buildAgain(t *testing.T, p *sandbox.Provider) {
	t.Helper()
	running := func() (n int) {
		for _, err := range p.List(testContext(t), nil) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if running() != 1 {
		t.Fatalf("%d sandboxes are left by the build", running())
	}
	ctx, cancel := context.WithCancel(testContext(t))
	_, err := p.Driver().(driver.ImageBuilder).BuildImage(ctx, &driver.Build{Log: &canceller{"begun", cancel},
		Image: driver.Image{Base: localbox.HostRoot, Commands: []string{dyingCommand}}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("built again: %v", err)
	}
	if running() != 0 {
		t.Errorf("%d sandboxes are left", running())
	}
}
