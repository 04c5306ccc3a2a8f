package modalemu_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func TestLayers(t *testing.T) {
	p := newPlace(t, nil)
	secret, err := p.client.Secrets.FromMap(p.ctx, map[string]string{"TOKEN": "hunter2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	image := p.image.
		DockerfileCommands([]string{"ENV COLOUR=blue", "WORKDIR /srv/app", "RUN echo $COLOUR $EXTRA ${#TOKEN} > first"},
			&modal.ImageDockerfileCommandsParams{Env: map[string]string{"EXTRA": "extra"}, Secrets: []*modal.Secret{secret}}).
		DockerfileCommands([]string{"RUN cat first > second; env | grep -c TOKEN >> second || true"}, nil)
	built, err := image.Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.image.
		DockerfileCommands([]string{"ENV COLOUR=blue", "WORKDIR /srv/app", "RUN echo $COLOUR $EXTRA ${#TOKEN} > first"},
			&modal.ImageDockerfileCommandsParams{Env: map[string]string{"EXTRA": "extra"}, Secrets: []*modal.Secret{secret}}).
		DockerfileCommands([]string{"RUN cat first > second; env | grep -c TOKEN >> second || true"}, nil).
		Build(p.ctx, p.app, nil)
	if err != nil || again.ImageID != built.ImageID {
		t.Errorf("the same again: %v, %v, want %s", again, err, built.ImageID)
	}
	sb, err := p.client.Sandboxes.Create(p.ctx, p.app, built, &modal.SandboxCreateParams{
		Command: []string{"/bin/sh", "-c", "pwd; echo $COLOUR; cat second; env | grep -c TOKEN"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Detach() })
	out, err := io.ReadAll(sb.Stdout)
	if want := "/srv/app\nblue\nblue extra 7\n0\n0\n"; err != nil || string(out) != want {
		t.Errorf("in the image %q, %v, want %q", out, err, want)
	}
}

func TestFailedBuild(t *testing.T) {
	p := newPlace(t, nil)
	image := p.image.DockerfileCommands([]string{"RUN echo what is wrong >&2; exit 3"}, nil)
	var remote modal.RemoteError
	for range 2 { // it is tried again
		_, err := image.Build(p.ctx, p.app, nil)
		if !errors.As(err, &remote) || !strings.Contains(err.Error(), "what is wrong") || !strings.Contains(err.Error(), "3") {
			t.Errorf("a build that fails: %v", err)
		}
	}
	if _, err := p.image.DockerfileCommands([]string{"NONSENSE"}, nil).Build(p.ctx, p.app, nil); !errors.As(err, &remote) {
		t.Errorf("a command that is none: %v", err)
	}
}

func TestOneBuildForAll(t *testing.T) {
	p := newPlace(t, nil)
	ids := make([]string, 6)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			image, err := p.image.DockerfileCommands([]string{"RUN sleep 1.3; date +%N > /opt/when"}, nil).Build(p.ctx, p.app, nil)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = image.ImageID
		})
	}
	all.Wait()
	if got := slices.Compact(ids); len(got) != 1 {
		t.Errorf("images %v", got)
	}
	forced, err := p.image.DockerfileCommands([]string{"RUN sleep 1.3; date +%N > /opt/when"}, &modal.ImageDockerfileCommandsParams{ForceBuild: true}).Build(p.ctx, p.app, nil)
	if err != nil || forced.ImageID == ids[0] {
		t.Errorf("forced: %v, %v", forced, err)
	}
	newest, err := p.image.DockerfileCommands([]string{"RUN sleep 1.3; date +%N > /opt/when"}, nil).Build(p.ctx, p.app, nil)
	if err != nil || newest.ImageID != forced.ImageID {
		t.Errorf("after it: %v, %v, want %v", newest, err, forced)
	}
}

func TestUnreachableRegistry(t *testing.T) {
	s := modaltest.New(t, &modaltest.Options{PullImages: true})
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	app, err := client.Apps.FromName(t.Context(), "tests", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := client.Secrets.FromMap(t.Context(), map[string]string{"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "hunter2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Images.FromRegistry("127.0.0.1:1/nothing:v1", &modal.ImageFromRegistryParams{Secret: secret}).Build(t.Context(), app, nil)
	var remote modal.RemoteError
	if !errors.As(err, &remote) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an unreachable registry: %v", err)
	}
}

func TestCopyFromARegistry(t *testing.T) {
	p := newPlace(t, nil)
	image, err := p.image.DockerfileCommands([]string{
		"COPY --from=alpine:latest /etc/os-release /tmp/os-release",
		"COPY --from=alpine:latest /usr/bin/env /usr/lib/os-release /opt/",
	}, nil).Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.image = image
	p.sb = p.create(nil)
	if out := p.sh("cmp /etc/os-release /tmp/os-release; cmp /usr/bin/env /opt/env; cmp /etc/os-release /opt/os-release; /opt/env echo ran"); out != "ran\n" {
		t.Errorf("in the image: %q", out)
	}
}
