//go:build linux

package ociimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// hub is a registry that can be disturbed.
type hub struct {
	*httptest.Server
	disturb atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]

	mu   sync.Mutex
	gets []string
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			h.mu.Lock()
			h.gets = append(h.gets, r.URL.Path)
			h.mu.Unlock()
		}
		if d := h.disturb.Load(); d != nil {
			(*d)(w, r, reg)
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

// blobs counts the layers and configurations that were asked for.
func (h *hub) blobs() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.gets {
		if strings.Contains(p, "/blobs/") {
			n++
		}
	}
	return n
}

func (h *hub) with(d func(http.ResponseWriter, *http.Request, http.Handler)) { h.disturb.Store(&d) }

func (h *hub) ref(tag string) string { return strings.TrimPrefix(h.URL, "http://") + "/" + tag }

func (h *hub) push(t *testing.T, tag string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(h.ref(tag))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func layerOf(t *testing.T, tarred []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tarred)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture, cfg.OS = runtime.GOARCH, "linux"
	cfg.Config = v1.Config{Env: []string{"PATH=/bin", "A=b"}, WorkingDir: "/srv", User: "nobody", Entrypoint: []string{"/init"}, Cmd: []string{"-x"}}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

func pullRoot(t *testing.T, s *Store, src *Source) (*Record, *Root) {
	t.Helper()
	rec, err := s.Pull(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return rec, s.Root(rec)
}

func TestPull(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	base := layerOf(t, archive(t, dir("etc"), file("etc/os", "base"), file("old", "1")).Bytes())
	h.push(t, "app:1", imageOf(t, base, layerOf(t, archive(t, file("app", "one"), file(".wh.old", "")).Bytes())))
	h.push(t, "app:2", imageOf(t, base, layerOf(t, archive(t, file("app", "two")).Bytes())))
	var progress bytes.Buffer
	rec, root := pullRoot(t, s, &Source{Ref: h.ref("app:1"), Log: &progress})
	wantFiles(t, root, map[string]string{"etc/os": "base", "app": "one", "old": "<none>"})
	if rec.Config.Dir != "/srv" || rec.Config.User != "nobody" || !slices.Equal(rec.Config.Env, []string{"PATH=/bin", "A=b"}) ||
		!slices.Equal(rec.Config.Entrypoint, []string{"/init"}) || !slices.Equal(rec.Config.Command, []string{"-x"}) {
		t.Errorf("configuration %+v", rec.Config)
	}
	if got := progress.String(); !strings.Contains(got, "Layer 2 of 2 is unpacked") {
		t.Errorf("progress %q", got)
	}
	before := h.blobs()
	_, two := pullRoot(t, s, &Source{Ref: h.ref("app:2")})
	wantFiles(t, two, map[string]string{"app": "two", "old": "1"})
	if n := h.blobs() - before; n != 2 {
		t.Errorf("%d blobs were fetched for a second layer and a configuration", n)
	}
	if two.Layers[0] != root.Layers[0] {
		t.Error("the base is there twice")
	}
	h.with(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusTeapot) })
	again, _ := pullRoot(t, s, &Source{Ref: h.ref("app:1")})
	if again.ID != rec.ID {
		t.Error("pulled twice")
	}
}

func TestPullForceLooksAgain(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	img := func(body string) v1.Image { return imageOf(t, layerOf(t, archive(t, file("v", body)).Bytes())) }
	h.push(t, "app:latest", img("1"))
	first, _ := pullRoot(t, s, &Source{Ref: h.ref("app")})
	same, _ := pullRoot(t, s, &Source{Ref: h.ref("app"), Force: true})
	if same.ID != first.ID {
		t.Error("what has not changed became another image")
	}
	h.push(t, "app:latest", img("2"))
	if kept, _ := pullRoot(t, s, &Source{Ref: h.ref("app")}); kept.ID != first.ID {
		t.Error("looked again without being asked")
	}
	_, root := pullRoot(t, s, &Source{Ref: h.ref("app"), Force: true})
	wantFiles(t, root, map[string]string{"v": "2"})
}

func TestPullFormsOfImages(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	tarred := archive(t, file("a", "zstd")).Bytes()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	z := &staticLayer{compressed: enc.EncodeAll(tarred, nil), plain: tarred, media: "application/vnd.oci.image.layer.v1.tar+zstd"}
	h.push(t, "forms:zstd", imageOf(t, z))
	h.push(t, "forms:plain", imageOf(t, &staticLayer{compressed: tarred, plain: tarred, media: types.OCIUncompressedLayer}))
	for _, tag := range []string{"forms:zstd", "forms:plain"} {
		_, root := pullRoot(t, s, &Source{Ref: h.ref(tag)})
		wantFiles(t, root, map[string]string{"a": "zstd"})
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	mine := imageOf(t, layerOf(t, archive(t, file("a", "mine")).Bytes()))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageOf(t, layerOf(t, tarred)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other}}},
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	ref, _ := name.ParseReference(h.ref("forms:index"))
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	_, root := pullRoot(t, s, &Source{Ref: h.ref("forms:index")})
	wantFiles(t, root, map[string]string{"a": "mine"})
	foreign := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other}}})
	ref, _ = name.ParseReference(h.ref("forms:foreign"))
	if err := remote.WriteIndex(ref, foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), &Source{Ref: h.ref("forms:foreign")}); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("image for %s only: %v", other, err)
	}
}

// staticLayer is a layer as it lies in a registry.
type staticLayer struct {
	compressed, plain []byte
	media             types.MediaType
}

func (l *staticLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.compressed))
	return h, err
}
func (l *staticLayer) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.plain))
	return h, err
}
func (l *staticLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.compressed)), nil
}
func (l *staticLayer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}
func (l *staticLayer) Size() (int64, error)                { return int64(len(l.compressed)), nil }
func (l *staticLayer) MediaType() (types.MediaType, error) { return l.media, nil }

// liar says that it unpacks to something else.
type liar struct{ v1.Layer }

func (liar) DiffID() (v1.Hash, error) {
	return v1.NewHash("sha256:" + strings.Repeat("0", 64))
}

func TestPullErrors(t *testing.T) {
	h := newHub(t)
	big := archive(t, file("a", strings.Repeat("x", 1<<20))).Bytes()
	img := imageOf(t, &staticLayer{compressed: big, plain: big, media: types.OCIUncompressedLayer})
	h.push(t, "app:1", img)
	h.push(t, "app:liar", imageOf(t, liar{layerOf(t, archive(t, file("a", "b")).Bytes())}))
	h.push(t, "app:short", imageOf(t, layerOf(t, big[:700])))
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	status := func(code int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	changed := func(part string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, reg http.Handler) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, part) {
				reg.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			reg.ServeHTTP(rec, r)
			for k := range rec.Header() {
				w.Header()[k] = rec.Header()[k]
			}
			body := rec.Body.Bytes()
			body[len(body)/2] ^= 1
			w.WriteHeader(rec.Code)
			w.Write(body)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	tests := []struct {
		name, ref string
		disturb   func(http.ResponseWriter, *http.Request, http.Handler)
		opts      Options
		want      error
		text      string
	}{
		{name: "no name", ref: "Not A Name", want: driver.ErrInvalid, text: "debian:12"},
		{name: "unreachable", ref: strings.TrimPrefix(gone.URL, "http://") + "/app:1", want: driver.ErrUnavailable, text: "HTTPS_PROXY"},
		{name: "unknown tag", ref: h.ref("app:none"), want: driver.ErrNotFound, text: "check name and tag"},
		{name: "unknown name", ref: h.ref("none:1"), want: driver.ErrNotFound},
		{name: "login", disturb: status(401, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`), want: driver.ErrUnauthenticated, text: "Image.Registry"},
		{name: "denied", disturb: status(403, `{"errors":[{"code":"DENIED","message":"no"}]}`), want: driver.ErrUnauthenticated},
		{name: "garbage", disturb: status(200, `<html>`), want: nil},
		{name: "wrong layer", disturb: changed("/blobs/"), want: ErrDamaged},
		{name: "wrong manifest", ref: h.ref("app@" + digest.String()), disturb: changed("/manifests/")},
		{name: "wrong diff id", ref: h.ref("app:liar"), want: ErrDamaged, text: "the image says"},
		{name: "truncated", ref: h.ref("app:short"), want: ErrDamaged},
		{name: "too many bytes", opts: Options{MaxBytes: 1000}, want: driver.ErrExhausted, text: "MaxBytes"},
		{name: "too many files", opts: Options{MaxFiles: -1}, want: driver.ErrExhausted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, tt.opts)
			h.disturb.Store(nil)
			if tt.disturb != nil {
				h.with(tt.disturb)
			}
			if tt.ref == "" {
				tt.ref = h.ref("app:1")
			}
			_, err := s.Pull(t.Context(), &Source{Ref: tt.ref})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v; want %v, with %q", err, tt.want, tt.text)
			}
			for _, sub := range []string{"tmp", "layers", "records"} {
				left, rerr := os.ReadDir(filepath.Join(s.dir, sub))
				if rerr != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", sub, left, rerr)
				}
			}
		})
	}
}

func TestPullLogin(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	h.push(t, "private:1", imageOf(t, layerOf(t, archive(t, file("a", "b")).Bytes())))
	h.with(func(w http.ResponseWriter, r *http.Request, reg http.Handler) {
		user, password, _ := r.BasicAuth()
		if user == "me" && password == "s3cret" || user == "_json_key" && password == "{}" {
			reg.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	with := func(kind driver.RegistryKind, kv ...string) *driver.Registry {
		return &driver.Registry{Kind: kind, Credentials: kv}
	}
	good := with(driver.RegistryPassword, "REGISTRY_PASSWORD=s3cret", "REGISTRY_USERNAME=me")
	pull := func(r *driver.Registry) error {
		_, err := s.Pull(t.Context(), &Source{Ref: h.ref("private:1"), Login: r})
		return err
	}
	if err := pull(nil); !errors.Is(err, driver.ErrUnauthenticated) {
		t.Errorf("without a login: %v", err)
	}
	if err := pull(good); err != nil {
		t.Errorf("with the password: %v", err)
	}
	if err := pull(with(driver.RegistryGCP, "SERVICE_ACCOUNT_JSON={}")); err != nil {
		t.Errorf("with a key of Google: %v", err)
	}
	// What somebody else has pulled is no way in.
	for _, r := range []*driver.Registry{nil, with(driver.RegistryPassword, "REGISTRY_PASSWORD=s3cre7", "REGISTRY_USERNAME=me")} {
		err := pull(r)
		if !errors.Is(err, driver.ErrUnauthenticated) {
			t.Errorf("with %v: %v", r, err)
		} else if strings.Contains(err.Error(), "s3cre7") {
			t.Errorf("the password is in %q", err)
		}
	}
	if err := pull(with(driver.RegistryECR, "AWS_REGION=x")); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "get-login-password") {
		t.Errorf("ECR: %v", err)
	}
	if err := pull(&driver.Registry{SecretName: "x"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("by name: %v", err)
	}
}

// A full disk is not taken for a network that is down.
func TestPullDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no disk that is always full: %v", err)
	}
	defer full.Close()
	_, err = full.Write([]byte("x"))
	p := &pull{ref: must(name.ParseReference("a/b"))}
	got := p.explain(t.Context(), fmt.Errorf("layer 1 of 1: %w", plain(err, "/here")))
	if !errors.Is(got, driver.ErrExhausted) || errors.Is(got, driver.ErrUnavailable) || !strings.Contains(got.Error(), "/here is full") {
		t.Error(got)
	}
}

// A registry that breaks off for good is given up.
func TestPullBreaksOff(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{Stall: 50 * time.Millisecond})
	big := archive(t, file("a", strings.Repeat("x", 1<<20))).Bytes()
	h.push(t, "app:1", imageOf(t, &staticLayer{compressed: big, plain: big, media: types.OCIUncompressedLayer}))
	h.with(func(w http.ResponseWriter, r *http.Request, reg http.Handler) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			reg.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		reg.ServeHTTP(rec, r)
		if rec.Body.Len() < 1<<20 {
			w.Write(rec.Body.Bytes())
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		w.Write(rec.Body.Bytes()[:1000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	if _, err := s.Pull(t.Context(), &Source{Ref: h.ref("app:1")}); !errors.Is(err, driver.ErrUnavailable) || !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

// A download that breaks off goes on where it was.
func TestPullResumes(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{Stall: 300 * time.Millisecond})
	img, err := random.Image(3<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	img = imageOf(t, must(img.Layers())...)
	h.push(t, "big:1", img)
	var ranges, requests atomic.Int64
	h.with(func(w http.ResponseWriter, r *http.Request, reg http.Handler) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			reg.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		whole := r.Clone(r.Context())
		whole.Header.Del("Range")
		reg.ServeHTTP(rec, whole)
		body := rec.Body.Bytes()
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && ranges.Add(1)%4 != 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
			w.Header().Set("Content-Length", fmt.Sprint(len(body)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			from = 0
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		rest := body[from:]
		n := min(len(rest), from+1<<20) // gets further every time
		w.Write(rest[:n])
		if n == len(rest) {
			return
		}
		if requests.Add(1)%3 == 0 {
			w.(http.Flusher).Flush()
			<-r.Context().Done() // says nothing any more
		}
		panic(http.ErrAbortHandler)
	})
	rec, err := s.Pull(t.Context(), &Source{Ref: h.ref("big:1")})
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Layers) != 2 || ranges.Load() < 4 {
		t.Errorf("%d layers after %d requests for a part", len(rec.Layers), ranges.Load())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestPullAtOnce(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	base := layerOf(t, archive(t, file("base", "b")).Bytes())
	for i := range 4 {
		h.push(t, fmt.Sprintf("app:%d", i), imageOf(t, base, layerOf(t, archive(t, file("n", fmt.Sprint(i))).Bytes())))
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rec, err := s.Pull(context.Background(), &Source{Ref: h.ref(fmt.Sprintf("app:%d", i%4))})
			if err != nil {
				t.Error(err)
				return
			}
			wantFiles(t, s.Root(rec), map[string]string{"base": "b", "n": fmt.Sprint(i % 4)})
		})
	}
	wg.Wait()
	manifests := 0
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.gets {
		if path.Base(path.Dir(p)) == "manifests" {
			manifests++
		}
	}
	if manifests != 4 {
		t.Errorf("%d manifests were fetched for four images", manifests)
	}
}

func TestPullCancelled(t *testing.T) {
	h, s := newHub(t), openStore(t, Options{})
	h.push(t, "app:1", imageOf(t, layerOf(t, archive(t, file("a", "b")).Bytes())))
	ctx, cancel := context.WithCancel(t.Context())
	h.with(func(w http.ResponseWriter, r *http.Request, reg http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel()
			<-r.Context().Done()
			return
		}
		reg.ServeHTTP(w, r)
	})
	if _, err := s.Pull(ctx, &Source{Ref: h.ref("app:1")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
