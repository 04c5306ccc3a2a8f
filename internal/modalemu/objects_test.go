package modalemu_test

import (
	"errors"
	"testing"

	modal "github.com/modal-labs/modal-client/go"
)

func TestImages(t *testing.T) {
	p := newPlace(t, nil)
	image, err := p.client.Images.FromRegistry("alpine:3.21", nil).Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	same, err := p.client.Images.FromRegistry("alpine:3.21", nil).Build(p.ctx, p.app, nil)
	if err != nil || same.ImageID != image.ImageID {
		t.Errorf("the same again: %v, %v, want %s", same, err, image.ImageID)
	}
	if err := image.Publish(p.ctx, "team/mine:v1", nil); err != nil {
		t.Fatal(err)
	}
	if found, err := p.client.Images.FromName(p.ctx, "team/mine:v1", nil); err != nil || found.ImageID != image.ImageID {
		t.Errorf("from name: %v, %v", found, err)
	}
	var missing modal.NotFoundError
	if _, err := p.client.Images.FromName(p.ctx, "mine:v1", nil); !errors.As(err, &missing) {
		t.Errorf("from a name in another environment: %v", err)
	}
	if err := p.client.Images.Delete(p.ctx, image.ImageID, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.client.Images.Delete(p.ctx, image.ImageID, nil); !errors.As(err, &missing) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := p.client.Images.FromID(p.ctx, image.ImageID, nil); !errors.As(err, &missing) {
		t.Errorf("from the id of a deleted one: %v", err)
	}
	if _, err := p.client.Images.FromName(p.ctx, "team/mine:v1", nil); !errors.As(err, &missing) {
		t.Errorf("from the name of a deleted one: %v", err)
	}
	anew, err := p.client.Images.FromRegistry("alpine:3.21", nil).Build(p.ctx, p.app, nil)
	if err != nil || anew.ImageID == image.ImageID {
		t.Errorf("built anew: %v, %v", anew, err)
	}
}

func TestEnvironments(t *testing.T) {
	p := newPlace(t, nil)
	if err := p.client.Environments.Objects.Create(p.ctx, "staging", nil); err != nil {
		t.Fatal(err)
	}
	var exists modal.AlreadyExistsError
	if err := p.client.Environments.Objects.Create(p.ctx, "staging", nil); !errors.As(err, &exists) {
		t.Errorf("created twice: %v", err)
	}
	app, err := p.client.Apps.FromName(p.ctx, "tests", &modal.AppFromNameParams{Environment: "staging", CreateIfMissing: true})
	if err != nil || app.AppID == p.app.AppID {
		t.Fatal(app, err)
	}
	sb, err := p.client.Sandboxes.Create(p.ctx, app, p.image, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client.Environments.Objects.Delete(p.ctx, "staging"); err != nil {
		t.Fatal(err)
	}
	if code, err := sb.Wait(p.ctx, nil); code != 137 || err != nil {
		t.Errorf("a sandbox of a deleted environment: %d, %v", code, err)
	}
	var missing modal.NotFoundError
	if _, err := p.client.Environments.FromName(p.ctx, "staging", nil); !errors.As(err, &missing) {
		t.Errorf("a deleted environment: %v", err)
	}
}
