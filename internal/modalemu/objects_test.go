package modalemu_test

import (
	"errors"
	"testing"
	"time"

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

func TestQueues(t *testing.T) {
	p := newPlace(t, nil)
	q, err := p.client.Queues.FromName(p.ctx, "work", &modal.QueueFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan any, 1)
	go func() {
		v, err := q.Get(p.ctx, nil) // waits for the first value
		if err != nil {
			v = err
		}
		got <- v
	}()
	if err := q.PutMany(p.ctx, []any{int64(1), "two", int64(3)}, nil); err != nil {
		t.Fatal(err)
	}
	if v := <-got; v != int64(1) {
		t.Errorf("got %v, want 1", v)
	}
	var seen []any
	for v, err := range q.Iterate(p.ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, v)
	}
	if len(seen) != 2 || seen[0] != "two" {
		t.Errorf("iterated over %v", seen)
	}
	if err := q.Put(p.ctx, "other", &modal.QueuePutParams{Partition: "p"}); err != nil {
		t.Fatal(err)
	}
	if n, err := q.Len(p.ctx, &modal.QueueLenParams{Total: true}); n != 3 || err != nil {
		t.Errorf("length %d, %v", n, err)
	}
	now := time.Duration(0)
	if err := q.PutMany(p.ctx, make([]any, 5000), &modal.QueuePutManyParams{QueuePutParams: modal.QueuePutParams{Timeout: &now}}); !errors.As(err, &modal.QueueFullError{}) {
		t.Errorf("put into a full one: %v", err)
	}
	if err := q.Clear(p.ctx, &modal.QueueClearParams{All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Get(p.ctx, &modal.QueueGetParams{Timeout: &now}); !errors.As(err, &modal.QueueEmptyError{}) {
		t.Errorf("get from an empty one: %v", err)
	}
	if err := p.client.Queues.Delete(p.ctx, "work", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Len(p.ctx, nil); err == nil {
		t.Error("a deleted queue has a length")
	}
}
