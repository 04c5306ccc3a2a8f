package modalemu_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func TestEndings(t *testing.T) {
	p := newPlace(t, nil)
	for _, c := range []struct {
		name   string
		params modal.SandboxCreateParams
		want   int
	}{
		{"exit", modal.SandboxCreateParams{Command: []string{"/bin/sh", "-c", "exit 42"}}, 42},
		{"signal", modal.SandboxCreateParams{Command: []string{"/bin/sh", "-c", "kill -15 $$"}}, 143},
		{"lifetime", modal.SandboxCreateParams{Timeout: time.Second}, 124},
		{"no such program", modal.SandboxCreateParams{Command: []string{"no-such-program"}}, 127},
		{"idle", modal.SandboxCreateParams{Command: []string{"sleep", "60"}, IdleTimeout: time.Second}, 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			sb := p.create(&c.params)
			if code, err := sb.Wait(p.ctx, nil); code != c.want || err != nil {
				t.Errorf("wait: %d, %v, want %d", code, err, c.want)
			}
			if code, err := sb.Poll(p.ctx, nil); err != nil || code == nil || *code != c.want {
				t.Errorf("poll: %v, %v, want %d", code, err, c.want)
			}
			if _, err := sb.Terminate(p.ctx, nil); err != nil {
				t.Errorf("terminate what has ended: %v", err)
			}
		})
	}
	if code, err := p.sb.Poll(p.ctx, nil); code != nil || err != nil {
		t.Errorf("poll what runs: %v, %v", code, err)
	}
	for range 2 {
		if code, err := p.sb.Terminate(p.ctx, &modal.SandboxTerminateParams{Wait: true}); code != 137 || err != nil {
			t.Errorf("terminate: %d, %v", code, err)
		}
	}
}

func TestAnExecKeepsFromBeingIdle(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{IdleTimeout: time.Second})
	if out := p.sh("sleep 1.6; echo done"); out != "done\n" {
		t.Errorf("output %q", out)
	}
	if code, err := p.sb.Wait(p.ctx, nil); code != 137 || err != nil {
		t.Errorf("wait: %d, %v", code, err)
	}
}

func TestNames(t *testing.T) {
	p := newPlace(t, nil)
	sb := p.create(&modal.SandboxCreateParams{Name: "mine"})
	var exists modal.AlreadyExistsError
	if _, err := p.client.Sandboxes.Create(p.ctx, p.app, p.image, &modal.SandboxCreateParams{Name: "mine"}); !errors.As(err, &exists) {
		t.Errorf("a second one of that name: %v", err)
	}
	other, err := p.client.Apps.FromName(p.ctx, "other", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := p.client.Sandboxes.Create(p.ctx, other, p.image, &modal.SandboxCreateParams{Name: "mine"})
	if err != nil {
		t.Errorf("one of that name in another app: %v", err)
	} else if _, err := elsewhere.Terminate(p.ctx, nil); err != nil {
		t.Error(err)
	}
	found, err := p.client.Sandboxes.FromName(p.ctx, "tests", "mine", nil)
	if err != nil || found.SandboxID != sb.SandboxID {
		t.Errorf("from name: %v, %v", found, err)
	}
	if _, err := sb.Terminate(p.ctx, nil); err != nil {
		t.Fatal(err)
	}
	var missing modal.NotFoundError
	if _, err := p.client.Sandboxes.FromName(p.ctx, "tests", "mine", nil); !errors.As(err, &missing) {
		t.Errorf("from the name of one that has ended: %v", err)
	}
	found, err = p.client.Sandboxes.FromName(p.ctx, "tests", "mine", &modal.SandboxFromNameParams{IncludeTerminated: true})
	if err != nil || found.SandboxID != sb.SandboxID {
		t.Errorf("from name, ended ones too: %v, %v", found, err)
	}
	again := p.create(&modal.SandboxCreateParams{Name: "mine"})
	var conflict modal.ConflictError
	if err := again.ExperimentalSetName(p.ctx, "another", nil); !errors.As(err, &conflict) {
		t.Errorf("a second name: %v", err)
	}
	if err := p.sb.ExperimentalSetName(p.ctx, "mine", nil); !errors.As(err, &exists) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := p.sb.ExperimentalSetName(p.ctx, "late", nil); err != nil {
		t.Error(err)
	}
	if found, err := p.client.Sandboxes.FromName(p.ctx, "tests", "late", nil); err != nil || found.SandboxID != p.sb.SandboxID {
		t.Errorf("from a late name: %v, %v", found, err)
	}
}

func TestListToTheEnd(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{Tags: map[string]string{"n": "0"}})
	want := []string{p.sb.SandboxID}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			sb := p.create(&modal.SandboxCreateParams{Tags: map[string]string{"n": fmt.Sprint(i % 2)}})
			mu.Lock()
			defer mu.Unlock()
			if i%2 == 0 {
				want = append(want, sb.SandboxID)
			}
		})
	}
	all.Wait()
	var got []string
	seq, err := p.client.Sandboxes.List(p.ctx, &modal.SandboxListParams{AppID: p.app.AppID, Tags: map[string]string{"n": "0"}})
	if err != nil {
		t.Fatal(err)
	}
	for sb, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, sb.SandboxID)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestEnvironmentOfCommands(t *testing.T) {
	p := newPlace(t, nil)
	named, err := p.client.Secrets.FromName(p.ctx, "named", &modal.SecretFromNameParams{RequiredKeys: []string{"A"}})
	if err != nil {
		t.Fatal(err)
	}
	local, err := p.client.Secrets.FromMap(p.ctx, map[string]string{"A": "local", "C": "local"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sb := p.create(&modal.SandboxCreateParams{
		Command: []string{"/bin/sh", "-c", `echo "$A $B $C $MODAL_TASK_ID $MODAL_SANDBOX_ID"; pwd`},
		Secrets: []*modal.Secret{named, local}, Env: map[string]string{"C": "env", "MODAL_TASK_ID": "mine"},
	})
	out, err := io.ReadAll(sb.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if want := "local named env ta-"; !strings.HasPrefix(string(out), want) {
		t.Errorf("environment %q, want %q…", out, want)
	}
	if want := sb.SandboxID + "\n/\n"; !strings.HasSuffix(string(out), want) {
		t.Errorf("environment %q, want …%q", out, want)
	}
	if _, err := p.client.Secrets.FromName(p.ctx, "named", &modal.SecretFromNameParams{RequiredKeys: []string{"A", "Z", "Y"}}); err == nil ||
		!strings.Contains(err.Error(), "Secret is missing key(s): Z, Y") {
		t.Errorf("missing keys: %v", err)
	}
	if err := p.client.Secrets.Delete(p.ctx, "named", nil); err != nil {
		t.Error(err)
	}
	var missing modal.NotFoundError
	if _, err := p.client.Secrets.FromName(p.ctx, "named", nil); !errors.As(err, &missing) {
		t.Errorf("a deleted secret: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	p := newPlace(t, nil)
	for name, params := range map[string]*modal.SandboxCreateParams{
		"Invalid cloud provider":            {Cloud: "nowhere"},
		"Invalid region":                    {Regions: []string{"invalid-region"}},
		"Invalid CIDR (outbound IPv4): x/8": {OutboundCIDRAllowlist: &modal.Allowlist{Entries: []string{"x/8"}}},
		"Invalid domain":                    {OutboundDomainAllowlist: &modal.Allowlist{Entries: []string{"not a valid domain!"}}},
		"Invalid CIDR (inbound)":            {InboundCIDRAllowlist: []string{"x"}},
		"between 1 second and 24 hours":     {Timeout: 25 * time.Hour},
		"or given twice":                    {UnencryptedPorts: []int{80, 80}},
		"mount path must be absolute":       {Volumes: map[string]*modal.Volume{"relative": {VolumeID: "vo-1"}}},
		"Volume 'vo-1' not found":           {Volumes: map[string]*modal.Volume{"/mnt": {VolumeID: "vo-1"}}},
		"Proxy 'pr-1' not found":            {Proxy: &modal.Proxy{ProxyID: "pr-1"}},
		"Secret 'st-1' not found":           {Secrets: []*modal.Secret{{SecretID: "st-1"}}},
		"cannot be mounted with a role":     {CloudBucketMounts: map[string]*modal.CloudBucketMount{"/mnt/b": {BucketName: "b", OidcAuthRoleArn: new("arn:x")}}},
		"two mounts have the path /mnt/b": {
			CloudBucketMounts: map[string]*modal.CloudBucketMount{"/mnt/b": {BucketName: "b"}, "/mnt/b/": {BucketName: "c"}},
		},
		"bucket b cannot be mounted at /mnt/b": {
			CloudBucketMounts: map[string]*modal.CloudBucketMount{"/mnt/b": {BucketName: "b", BucketEndpointURL: new("http://127.0.0.1:1")}},
		},
	} {
		_, err := p.client.Sandboxes.Create(p.ctx, p.app, p.image, params)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestNoMemorySnapshots: a sandbox that could have one on Modal runs here too, and
// says what can be saved instead when it is asked for one.
func TestNoMemorySnapshots(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{ExperimentalEnableSnapshot: true})
	_, err := p.sb.ExperimentalSnapshot(p.ctx, nil)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "SnapshotFilesystem") {
		t.Errorf("snapshot: %v", err)
	}
	snapshot, err := p.client.SandboxSnapshots.FromID(p.ctx, "sn-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Sandboxes.ExperimentalFromSnapshot(p.ctx, snapshot, nil); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("restore: %v", err)
	}
}

func TestCreatesAreMadeOnce(t *testing.T) {
	p := newPlace(t, nil)
	count := func() (n int) {
		seq, err := p.client.Sandboxes.List(p.ctx, &modal.SandboxListParams{AppID: p.app.AppID})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	p.server.Inject(modaltest.Fault{Method: "SandboxCreateV2", LoseAnswer: true, Times: 2})
	p.create(&modal.SandboxCreateParams{Name: "once"})
	if n := count(); n != 2 {
		t.Errorf("%d sandboxes, want 2", n)
	}
	p.server.Inject(modaltest.Fault{Method: "SandboxCreateV2", Code: codes.ResourceExhausted})
	if _, err := p.client.Sandboxes.Create(p.ctx, p.app, p.image, nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("exhausted: %v", err)
	}
	p.server.Inject(modaltest.Fault{Method: "SandboxCreateV2", Code: codes.ResourceExhausted, RetryAfter: time.Millisecond, Times: 3})
	p.create(nil)
	p.server.CutConnections()
	p.create(nil)
	if n := count(); n != 4 {
		t.Errorf("%d sandboxes, want 4", n)
	}
}

func TestConcurrentAttemptsGetOneAnswer(t *testing.T) {
	p := newPlace(t, nil)
	image, err := p.image.Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, ctx := raw(t, p.server)
	ctx = metadata.AppendToOutgoingContext(ctx, "x-idempotency-key", "one")
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			resp, err := pb.NewModalClientClient(conn).SandboxCreateV2(ctx, pb.SandboxCreateV2Request_builder{
				AppId: p.app.AppID, Definition: pb.Sandbox_builder{ImageId: image.ImageID}.Build(),
			}.Build())
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = resp.GetSandboxId()
		})
	}
	all.Wait()
	if got := slices.Compact(ids); len(got) != 1 {
		t.Errorf("sandboxes %v", got)
	}
}

func TestClientTokens(t *testing.T) {
	p := newPlace(t, nil)
	conn, ctx := raw(t, p.server)
	api := pb.NewModalClientClient(conn)
	list := func() error {
		_, err := api.SandboxListV2(ctx, &pb.SandboxListRequest{})
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if _, err := api.SandboxListV2(t.Context(), &pb.SandboxListRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without credentials: %v", err)
	}
	p.server.Inject(modaltest.Fault{ExpireTokens: true})
	for range 2 {
		if err := list(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("with an expired token: %v", err)
		}
	}
	if _, err := p.client.Apps.FromName(p.ctx, "tests", nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the client with an expired token: %v", err)
	}
}

func TestShortLivedTokens(t *testing.T) {
	s := modaltest.New(t, &modaltest.Options{TokenLife: time.Second})
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	app, err := client.Apps.FromName(t.Context(), "tests", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(t.Context(), app, client.Images.FromRegistry("debian:12", nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Detach()
	for range 2 { // the second one with other tokens
		cp, err := sb.Exec(t.Context(), []string{"sleep", "1.1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if code, err := cp.Wait(t.Context(), nil); code != 0 || err != nil {
			t.Error(code, err)
		}
	}
}

func TestExitSnapshot(t *testing.T) {
	p := newPlace(t, nil)
	var invalid modal.InvalidError
	if _, err := p.sb.ExperimentalGetExitSnapshot(p.ctx, nil); !errors.As(err, &invalid) {
		t.Errorf("of one that was not to have any: %v", err)
	}
	sb := p.create(&modal.SandboxCreateParams{
		Command:             []string{"/bin/sh", "-c", "echo kept > /root/file; read line"},
		ExperimentalOptions: map[string]any{"enable_exit_snapshot": true},
	})
	var late modal.TimeoutError
	now := time.Duration(0)
	if _, err := sb.ExperimentalGetExitSnapshot(p.ctx, &modal.SandboxExperimentalGetExitSnapshotParams{Timeout: &now}); !errors.As(err, &late) {
		t.Errorf("of one that runs: %v", err)
	}
	if err := sb.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := sb.ExperimentalGetExitSnapshot(p.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.image = image
	p.sb = p.create(nil)
	if out := p.sh("cat /root/file"); out != "kept\n" {
		t.Errorf("in the snapshot: %q", out)
	}
}

func TestLogs(t *testing.T) {
	begin := time.Now()
	p := newPlace(t, &modal.SandboxCreateParams{Command: []string{"/bin/sh", "-c", "echo one; echo two >&2; echo three; printf four"}})
	if code, err := p.sb.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	all := []string{"one\n", "two\n", "three\n", "four"}
	seq, err := p.sb.Logs.Fetch(p.ctx, begin, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, seq)
	slices.Sort(got)
	want := slices.Sorted(slices.Values(all))
	if !slices.Equal(got, want) {
		t.Errorf("fetched %q, want %q", got, want)
	}
	seq, err = p.sb.Logs.Fetch(p.ctx, begin, &modal.SandboxLogFetchParams{Source: modal.LogSourceStdout, SearchText: "o"})
	if err != nil {
		t.Fatal(err)
	}
	if got := entries(t, seq); !slices.Equal(got, []string{"one\n", "four"}) {
		t.Errorf("searched %q", got)
	}

	seq, err = p.sb.Logs.Tail(p.ctx, &modal.LogTailParams{Entries: 1, Source: modal.LogSourceStdout})
	if err != nil {
		t.Fatal(err)
	}
	if got := entries(t, seq); !slices.Equal(got, []string{"four"}) {
		t.Errorf("tail %q", got)
	}
}

func entries(t *testing.T, seq func(func(modal.LogEntry, error) bool)) (texts []string) {
	t.Helper()
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, e.Message)
	}
	return texts
}

func TestTheOlderInterface(t *testing.T) {
	p := newPlace(t, nil)
	sb := p.create(&modal.SandboxCreateParams{GPU: "T4", Name: "old", Tags: map[string]string{"a": "b"}, Command: []string{"cat"}})
	if _, err := sb.Stdin.Write([]byte("héllo\n")); err != nil {
		t.Fatal(err)
	}
	if err := sb.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(sb.Stdout); err != nil || string(out) != "héllo\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if code, err := sb.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
	p.sb = p.create(&modal.SandboxCreateParams{GPU: "T4", Name: "old"})
	if found, err := p.client.Sandboxes.FromName(p.ctx, "tests", "old", nil); err != nil || found.SandboxID != p.sb.SandboxID {
		t.Errorf("from name: %v, %v", found, err)
	}
	if err := p.sb.SetTags(p.ctx, map[string]string{"x": "y"}, nil); err != nil {
		t.Error(err)
	}
	if tags, err := p.sb.GetTags(p.ctx, nil); err != nil || tags["x"] != "y" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if out := p.sh("echo inside"); out != "inside\n" {
		t.Errorf("exec %q", out)
	}
	if code, err := p.sb.Terminate(p.ctx, &modal.SandboxTerminateParams{Wait: true}); code != 137 || err != nil {
		t.Error(code, err)
	}
}
