package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestCreateListGetDelete(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	resp := s.request("POST", "/sandbox", `{"name":"my-box","tags":{"team":"a"}}`)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("status %d", resp.StatusCode)
	}
	at, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	box := s.ask(200, "GET", at.Path, "")
	for field, want := range map[string]any{"name": "my-box", "state": "running", "isolated": false} {
		if box[field] != want {
			t.Errorf("%s is %v", field, box[field])
		}
	}
	if got := fmt.Sprint(box["tags"], box["ports"], box["unenforced"]); got != "map[team:a] map[8000:127.0.0.1:1] map[Memory:it is a directory]" {
		t.Errorf("tags, ports and what is not enforced: %s", got)
	}
	for _, field := range []string{"end", "ended_at", "volume_name", "version"} {
		if v, ok := box[field]; ok {
			t.Errorf("%s is there: %v", field, v)
		}
	}
	s.create("")
	list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)
	if len(list) != 2 || list[1].(map[string]any)["id"] != box["id"] {
		t.Errorf("list %v", list)
	}
	for range 2 { // the second time it has ended
		if got := s.ask(200, "DELETE", at.Path, ""); got["id"] != box["id"] || got["version"] != nil {
			t.Errorf("deleted: %v", got)
		}
	}
	gone := s.ask(200, "GET", at.Path, "")
	if gone["state"] != "ended" || gone["end"] != "cancelled" || gone["ended_at"] == nil || p.alive() != 1 {
		t.Errorf("after the deletion: %v, %d alive", gone, p.alive())
	}
	s.refused(409, "sandbox_ended", "POST", at.Path+"/claude", `{"prompt":"go"}`)
}

func TestConfigurationReachesTheProvider(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, func(c *sandboxhttp.Config) {
		c.Sandbox = &sandbox.Config{Env: map[string]string{"BASE": "1"}, Pids: 100, Memory: 1 << 30, Ports: []int{8000}}
		c.Pool = &pool.Options{Store: &p.pools}
	})
	box := s.create(`{"image_base":"debian:12","dockerfile_commands":["RUN true"],"env":{"KEY":"value"},"cpu":1.5,"memory_mb":512,
		"disk_mb":10,"timeout_seconds":60,"idle_timeout_seconds":30,
		"network":{"mode":"allowlist","domains":["example.com"],"cidrs":["192.0.2.0/24"]}}`)
	cfg := p.only().cfg
	got := fmt.Sprint(cfg.Image.Base, cfg.Image.Commands, cfg.CPU, cfg.Memory, cfg.Disk, cfg.Pids, cfg.Network, cfg.Env, []string(cfg.Secrets), cfg.Ports)
	want := "debian:12[RUN true] 1.5 536870912 10485760 100 {1 [example.com] [192.0.2.0/24]} [BASE=1] [KEY=value] [8000]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", ID: strings.TrimPrefix(box, "/sandbox/")})
	if err != nil || len(list) != 1 || list[0].Config.Timeout != time.Minute || list[0].Config.IdleTimeout != 30*time.Second {
		t.Errorf("the pool's records %+v, %v", list, err)
	}
	if fields := s.refused(422, "validation_failed", "POST", "/sandbox", `{"env":{"BASE":"2"}}`); !slices.Equal(fields, []string{"env.BASE"}) {
		t.Errorf("fields %v", fields)
	}
}

func TestPages(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	var want []string
	for range 7 {
		want = append([]string{strings.TrimPrefix(s.create(""), "/sandbox/")}, want...)
	}
	var got []string
	cursor := ""
	for {
		page := s.ask(200, "GET", "/sandbox?limit=3&cursor="+cursor, "")
		for _, box := range page["sandboxes"].([]any) {
			got = append(got, box.(map[string]any)["id"].(string))
		}
		if page["next_cursor"] == nil {
			break
		}
		cursor = page["next_cursor"].(string)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, query := range []string{"limit=0", "limit=201", "limit=x", "cursor=x", "cursor=%00"} {
		s.refused(422, "validation_failed", "GET", "/sandbox?"+query, "")
	}
	if list := s.as("nobody").ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) != 0 {
		t.Errorf("another account sees %v", list)
	}
}

func TestAnotherAccountsIDIsOneThatNeverWas(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) { <-gate; p.succeed() }), nil)
	box := s.create(`{"name":"mine"}`)
	f := s.prompt(box, "go")
	run := strings.TrimPrefix(f.run(box), box)
	other := s.as("other")
	for _, path := range []string{"", "/runs", run, run + "/events", "POST /claude", "POST " + run + "/interrupt", "DELETE "} {
		method, path, ok := strings.Cut(path, " ")
		if !ok {
			method, path = "GET", method
		}
		body := ""
		if strings.HasSuffix(path, "claude") {
			body = `{"prompt":"go"}`
		}
		theirs := other.ask(404, method, box+path, body)
		never := other.ask(404, method, "/sandbox/sb-never"+path, body)
		delete(theirs, "request_id")
		delete(never, "request_id")
		if fmt.Sprint(theirs) != fmt.Sprint(never) {
			t.Errorf("%s %s: %v, but %v", method, path, theirs, never)
		}
	}
	other.create(`{"name":"mine"}`) // names are each account's own
	s.refused(409, "name_in_use", "POST", "/sandbox", `{"name":"mine"}`)
	close(gate)
	f.all()
}

func TestLimitOfSandboxes(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, func(c *sandboxhttp.Config) { c.Limits.Sandboxes, c.Limits.Ended = 2, 2 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 6 {
		wg.Go(func() {
			resp := s.request("POST", "/sandbox", "")
			mu.Lock()
			statuses[resp.StatusCode]++
			mu.Unlock()
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		})
	}
	wg.Wait()
	if statuses[201] != 2 || statuses[429] != 4 || p.alive() != 2 {
		t.Fatalf("statuses %v, %d alive", statuses, p.alive())
	}
	// One that ended by itself makes room, though nobody has looked.
	p.only().end(driver.EndIdle)
	s.create("")
	// Only so many that have ended are remembered.
	for range 4 {
		for _, box := range s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any) {
			if box := box.(map[string]any); box["state"] == "running" {
				s.ask(200, "DELETE", "/sandbox/"+box["id"].(string), "")
			}
		}
		s.create("")
	}
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) > 3 {
		t.Errorf("%d are remembered", len(list))
	}
}

func TestSandboxThatEndedShowsHow(t *testing.T) {
	for _, end := range []driver.End{driver.EndIdle, driver.EndLifetime, driver.EndOOM, driver.EndProviderLost} {
		p := newPlace(t, talk)
		s := serve(t, p, nil)
		box := s.create("")
		p.only().end(end)
		if got := s.ask(200, "GET", box, ""); got["state"] != "ended" || got["end"] != string(end) {
			t.Errorf("%s: %v", end, got)
		}
		s.refused(409, "sandbox_ended", "POST", box+"/claude", `{"prompt":"go"}`)
		s.ask(200, "DELETE", box, "")
	}
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	box := s.create("")
	p.mu.Lock()
	clear(p.boxes) // the place knows nothing of it any more
	p.mu.Unlock()
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); list[0].(map[string]any)["end"] != "provider_lost" {
		t.Errorf("list %v", list)
	}
	_ = box
}

func TestProviderFailures(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	for _, c := range []struct {
		err    error
		status int
		code   string
		fields []string
	}{
		{&driver.UnsupportedError{Setting: "Image.Commands", Reason: "use a base"}, 422, "unsupported_setting", []string{"dockerfile_commands"}},
		{fmt.Errorf("the place says: %w", &driver.UnsupportedError{Setting: "Network.Domains"}), 422, "unsupported_setting", []string{"network.domains"}},
		{errors.Join(&driver.UnsupportedError{Setting: "CPU"}, &driver.UnsupportedError{Setting: "Disk"}), 422, "unsupported_setting", []string{"cpu", "disk_mb"}},
		{&driver.UnsupportedError{Setting: "Mounts"}, 422, "unsupported_setting", nil},
		{fmt.Errorf("%w: %w", driver.ErrInvalid, errors.New("Memory 5: use more")), 422, "validation_failed", []string{"memory_mb"}},
		{driver.ErrExhausted, 429, "exhausted", nil},
		{driver.ErrUnavailable, 502, "provider_failed", nil},
		{driver.ErrUnauthenticated, 502, "provider_failed", nil},
		{errors.New("token sk-secret was refused by 10.1.2.3"), 502, "provider_failed", nil},
	} {
		p.fail("create", c.err)
		if fields := s.refused(c.status, c.code, "POST", "/sandbox", ""); !slices.Equal(fields, c.fields) {
			t.Errorf("%v: fields %v", c.err, fields)
		}
	}
	p.fail("create", nil)
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) != 0 {
		t.Errorf("what was not made is listed: %v", list)
	}
	box := s.create("")
	for _, op := range []string{"list", "info"} {
		p.fail(op, driver.ErrUnavailable)
	}
	s.refused(502, "provider_failed", "GET", "/sandbox", "")
	s.refused(502, "provider_failed", "GET", box, "")
	p.fail("info", nil)
	p.fail("list", nil)
	p.fail("terminate", driver.ErrUnavailable)
	s.refused(502, "provider_failed", "DELETE", box, "")
	p.fail("terminate", nil)
	s.ask(200, "DELETE", box, "")
}

// The provider made it, but its answer was lost.
func TestALostAnswerIsAdopted(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	p.fail("create", driver.ErrUnavailable)
	p.fail("lost answer", errors.New("yes"))
	box := s.create("")
	if p.alive() != 1 || s.ask(200, "GET", box, "")["state"] != "running" {
		t.Errorf("%d alive", p.alive())
	}
	if s.prompt(box, "go").end()["end"] != "completed" {
		t.Error("no run")
	}
}

// A server that was started anew shows and serves what the one before made.
func TestRestartAdoptsSandboxes(t *testing.T) {
	p := newPlace(t, talk)
	volumes := volumesIn(new(storagetest.Memory))
	first := serve(t, p, volumes)
	kept := first.create(`{"name":"kept","tags":{"a":"b"},"volume_name":"w"}`)
	first.as("other").create("")
	first.close()
	s := serve(t, p, volumes)
	// Asked for by its id before anybody has listed.
	box := s.ask(200, "GET", kept, "")
	if box["name"] != "kept" || box["state"] != "running" || fmt.Sprint(box["tags"]) != "map[a:b]" || box["volume_name"] != "w" {
		t.Errorf("adopted: %v", box)
	}
	s.refused(409, "name_in_use", "POST", "/sandbox", `{"name":"kept"}`)
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) != 1 {
		t.Errorf("list %v", list)
	}
	if s.prompt(kept, "go").end()["end"] != "completed" {
		t.Error("no run in an adopted sandbox")
	}
	if got := s.ask(200, "DELETE", kept, ""); got["version"] == nil || p.alive() != 1 {
		t.Errorf("deleted %v, %d alive", got, p.alive())
	}
}

// volumesIn keeps the volumes of all accounts in one bucket.
func volumesIn(bucket storage.Bucket) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) {
		c.Volumes = func(_ context.Context, _ string, req sandboxhttp.VolumeRequest) (*storage.Volume, error) {
			if req.S3 != nil && req.S3.Endpoint != "https://s3.example.com" {
				return nil, fmt.Errorf("%w: endpoint is not one of ours", sandbox.ErrInvalid)
			}
			return storage.NewVolume(bucket, req.Key, nil), nil
		}
	}
}

func TestWorkspaceIsKeptInAVolume(t *testing.T) {
	p := newPlace(t, func(p *player) {
		dir := strings.TrimPrefix(p.prompt, "write in ")
		if err := os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hi"), 0o644); err != nil {
			t.Error(err)
		}
		p.succeed()
	})
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	box := s.create(`{"volume_name":"w"}`)
	s.prompt(box, "write in "+p.only().info.Dir).all()
	saved := s.ask(200, "DELETE", box, "")["version"].(map[string]any)
	if again := s.ask(200, "DELETE", box, "")["version"].(map[string]any); again["id"] != saved["id"] {
		t.Errorf("the second time: %v", again)
	}
	restored := s.ask(201, "POST", "/sandbox", `{"volume_name":"w"}`)
	if fmt.Sprint(restored["version"]) != fmt.Sprint(saved) {
		t.Errorf("restored %v, saved %v", restored["version"], saved)
	}
	if data, err := os.ReadFile(filepath.Join(boxOf(p, restored).info.Dir, "hello.txt")); err != nil || string(data) != "hi" {
		t.Errorf("hello.txt: %q, %v", data, err)
	}
	// The same name is another volume for another account.
	theirs := s.as("other").ask(201, "POST", "/sandbox", `{"volume_name":"w"}`)
	if theirs["version"] != nil {
		t.Errorf("another account got %v", theirs["version"])
	}
	if got := s.ask(200, "DELETE", "/sandbox/"+restored["id"].(string)+"?sync=false", ""); got["version"] != nil {
		t.Errorf("without sync: %v", got)
	}
}

// boxOf finds the sandbox of a record.
func boxOf(p *place, record map[string]any) *placeBox {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.boxes {
		if b.info.Tags["vivarium.id"] == record["id"] && b.info.State == driver.StateRunning {
			return b
		}
	}
	p.t.Fatalf("no sandbox is named %v", record["id"])
	return nil
}

func TestAccountsOfAllKindsHaveVolumesOfTheirOwn(t *testing.T) {
	seen := map[string]string{}
	p := newPlace(t, talk)
	s := serve(t, p, func(c *sandboxhttp.Config) {
		c.Volumes = func(_ context.Context, account string, req sandboxhttp.VolumeRequest) (*storage.Volume, error) {
			if err := storage.CheckName(req.Key); err != nil {
				t.Errorf("account %q: %v", account, err)
			}
			if other, taken := seen[req.Key]; taken {
				t.Errorf("%q and %q have the same volume %q", account, other, req.Key)
			}
			seen[req.Key] = account
			return storage.NewVolume(new(storagetest.Memory), req.Key, nil), nil
		}
	})
	for _, account := range []string{"acme", "acme/w", "../acme", "é", "a@b.c", strings.Repeat("x", 128), strings.Repeat("x", 127), ".", "-", "sha256-x"} {
		s.as(account).create(`{"volume_name":"w"}`)
	}
}

func TestFailureToSaveKeepsTheSandbox(t *testing.T) {
	faulty := new(storagetest.Memory)
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(&readOnly{Bucket: faulty}))
	box := s.create(`{"volume_name":"w"}`)
	s.refused(502, "sync_failed", "DELETE", box, "")
	if s.ask(200, "GET", box, "")["state"] != "running" || p.alive() != 1 {
		t.Fatal("the sandbox is gone")
	}
	if s.prompt(box, "go").end()["end"] != "completed" {
		t.Error("no more runs")
	}
	s.refused(422, "validation_failed", "DELETE", box+"?sync=maybe", "")
	s.ask(200, "DELETE", box+"?sync=false", "")
}

// readOnly is a bucket that stores nothing.
type readOnly struct{ storage.Bucket }

func TestFailureToRestoreLeavesNothing(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(unlisted{new(storagetest.Memory)}))
	s.refused(502, "restore_failed", "POST", "/sandbox", `{"volume_name":"w"}`)
	if p.alive() != 0 || len(s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)) != 0 {
		t.Errorf("%d alive", p.alive())
	}
}

func TestDeleteStopsRunsFirst(t *testing.T) {
	stopped := make(chan struct{})
	p := newPlace(t, func(p *player) {
		p.say("working")
		select {
		case <-p.interrupted:
			close(stopped)
			p.stopped()
		case <-p.ctx.Done():
		}
	})
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	box := s.create(`{"volume_name":"w"}`)
	f := s.prompt(box, "go")
	f.must()
	var wg sync.WaitGroup
	for range 3 { // they are one deletion
		wg.Go(func() {
			if got := s.ask(200, "DELETE", box, ""); got["version"] == nil {
				t.Errorf("deleted %v", got)
			}
		})
	}
	if f.end()["end"] != "cancelled" {
		t.Error("the run was not cancelled")
	}
	wg.Wait()
	<-stopped
}

func TestVolumeRequests(t *testing.T) {
	s := serve(t, newPlace(t, talk), volumesIn(new(storagetest.Memory)))
	for body, want := range map[string]string{
		`{"volume_name":"../x"}`:                                                          "volume_name",
		`{"volume_name":"a/b"}`:                                                           "volume_name",
		`{"s3":{"bucket":"b"}}`:                                                           "volume_name",
		`{"volume_name":"w","s3":{}}`:                                                     "s3.bucket",
		`{"volume_name":"w","s3":{"bucket":"b","access_key_id":"x"}}`:                     "s3.secret_access_key",
		`{"volume_name":"w","s3":{"bucket":"b","endpoint":"file:///etc"}}`:                "s3.endpoint",
		`{"volume_name":"w","s3":{"bucket":"b","endpoint":"https://u:p@s3.example.com"}}`: "s3.endpoint",
		`{"volume_name":"w","s3":{"bucket":"b","endpoint":"http://169.254.169.254"}}`:     "s3",
	} {
		if fields := s.refused(422, "validation_failed", "POST", "/sandbox", body); !slices.Equal(fields, []string{want}) {
			t.Errorf("%s: fields %v", body, fields)
		}
	}
	none := serve(t, newPlace(t, talk), nil)
	none.refused(422, "unsupported_setting", "POST", "/sandbox", `{"volume_name":"w"}`)
}

// The keys that came with the request are gone with the server that got them.
func TestOwnBucketAfterRestart(t *testing.T) {
	p := newPlace(t, talk)
	volumes := volumesIn(new(storagetest.Memory))
	first := serve(t, p, volumes)
	body := `{"volume_name":"w","s3":{"bucket":"b","endpoint":"https://s3.example.com","access_key_id":"AKIDENT","secret_access_key":"hush-hush"},"env":{"TOKEN":"shush"}}`
	box := first.create(body)
	first.close()
	s := serve(t, p, volumes)
	s.refused(502, "sync_failed", "DELETE", box, "")
	s.ask(200, "DELETE", box+"?sync=false", "")
	for _, secret := range []string{"AKIDENT", "hush-hush", "shush"} {
		if text := s.log.String() + first.log.String() + fmt.Sprint(p.only().info); strings.Contains(text, secret) {
			t.Errorf("%s is in logs or Info: %s", secret, text)
		}
	}
}

func TestProgressOfACreation(t *testing.T) {
	p := newPlace(t, talk)
	p.gate = make(chan struct{})
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	f := s.follow("POST", "/sandbox", `{"volume_name":"w"}`, "Accept", "text/event-stream")
	if e := f.must(); e.name != "progress" || e.data != `{"stage":"creating"}` || e.id != 0 {
		t.Errorf("%+v", e)
	}
	close(p.gate)
	events := f.all()
	if len(events) != 2 || events[0].data != `{"stage":"restoring"}` || events[1].name != "sandbox" || !strings.Contains(events[1].data, `"running"`) {
		t.Errorf("events %+v", events)
	}
	p.fail("create", driver.ErrExhausted)
	events = s.follow("POST", "/sandbox", "", "Accept", "text/event-stream").all()
	if last := events[len(events)-1]; last.name != "error" || !strings.Contains(last.data, `"code":"exhausted"`) || strings.Contains(last.data, `"request_id":""`) {
		t.Errorf("events %+v", events)
	}
}

// Nobody waits any more, and it is made all the same.
func TestClosingTheConnectionDoesNotCancelACreation(t *testing.T) {
	p := newPlace(t, talk)
	p.gate = make(chan struct{})
	s := serve(t, p, nil)
	f := s.follow("POST", "/sandbox", `{"name":"later"}`, "Accept", "text/event-stream")
	f.must()
	list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)
	box := list[0].(map[string]any)
	if box["state"] != "creating" {
		t.Errorf("state %v", box["state"])
	}
	f.close()
	close(p.gate)
	// A prompt waits until it is made.
	if s.prompt("/sandbox/"+box["id"].(string), "go").end()["end"] != "completed" {
		t.Error("no run")
	}
}

func TestAdmit(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, func(c *sandboxhttp.Config) {
		c.Admit = func(_ context.Context, who *sandboxhttp.Principal, c *sandbox.Config) error {
			switch {
			case c.Network.Mode == sandbox.NetworkFull:
				return fmt.Errorf("%w: no full network for %s", sandboxhttp.ErrForbidden, who.Account)
			case c.CPU > 4:
				return fmt.Errorf("%w: 4 cores are the most", sandbox.ErrInvalid)
			case c.CPU == 3:
				panic("a bug in a hook")
			}
			c.Memory = 1 << 28
			return nil
		}
	})
	if p := s.ask(403, "POST", "/sandbox", `{"network":{"mode":"full"}}`); p["code"] != "forbidden" || !strings.Contains(p["detail"].(string), "acme") {
		t.Errorf("%v", p)
	}
	s.refused(422, "validation_failed", "POST", "/sandbox", `{"cpu":8}`)
	s.refused(500, "internal", "POST", "/sandbox", `{"cpu":3}`, "Idempotency-Key", "k")
	if !strings.Contains(s.log.String(), "a bug in a hook") {
		t.Error("the panic was not logged")
	}
	s.create(`{"cpu":2}`)
	if p.only().cfg.Memory != 1<<28 {
		t.Error("the hook's change was lost")
	}
}

func (readOnly) Put(context.Context, string, io.Reader, *storage.PutOptions) error {
	return errors.New("the bucket is read-only")
}

// unlisted is a bucket that cannot be listed.
type unlisted struct{ storage.Bucket }

func (unlisted) List(context.Context, string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, errors.New("no list")) }
}
