package modalemu_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func TestFilesystem(t *testing.T) {
	p := newPlace(t, nil)
	files := p.sb.Filesystem
	if err := files.WriteText(p.ctx, "text", "/tmp/new/file", nil); err != nil {
		t.Fatal(err)
	}
	if info, err := files.Stat(p.ctx, "/tmp/new/file", nil); err != nil || info.Size != 4 || info.Type != modal.FileTypeFile {
		t.Errorf("%+v %v", info, err)
	}
	var isFile modal.SandboxFilesystemNotADirectoryError
	if _, err := files.ListFiles(p.ctx, "/tmp/new/file", nil); !errors.As(err, &isFile) {
		t.Errorf("%v", err)
	}
	var isDir modal.SandboxFilesystemIsADirectoryError
	if err := files.WriteBytes(p.ctx, make([]byte, 5<<20), "/tmp/new", nil); !errors.As(err, &isDir) {
		t.Errorf("%v", err)
	}
	if entries, err := files.ListFiles(p.ctx, "/tmp/new", nil); err != nil || len(entries) != 1 {
		t.Errorf("a failed write left something: %v %v", entries, err)
	}
	if err := files.Remove(p.ctx, "/tmp/new", &modal.SandboxFilesystemRemoveParams{Recursive: true}); err != nil {
		t.Error(err)
	}
	var missing modal.SandboxFilesystemNotFoundError
	if _, err := files.ReadBytes(p.ctx, "/tmp/new/file", nil); !errors.As(err, &missing) {
		t.Errorf("%v", err)
	}
}

func TestWatch(t *testing.T) {
	p := newPlace(t, nil)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	go func() { // nothing says when the watch has begun
		for ctx.Err() == nil {
			cp, err := p.sb.Exec(ctx, []string{"/bin/sh", "-c", "touch /tmp/a; mv /tmp/a /tmp/b"}, nil)
			if err == nil {
				_, _ = cp.Wait(ctx, nil)
			}
		}
	}()
	changes, err := p.sb.Filesystem.Watch(p.ctx, "/tmp", &modal.SandboxFilesystemWatchParams{
		Filter: []modal.FileWatchEventType{modal.FileWatchEventTypeModify},
	})
	if err != nil {
		t.Fatal(err)
	}
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		if c.EventType != modal.FileWatchEventTypeModify {
			t.Errorf("not asked for: %+v", c)
		}
		if len(c.Paths) == 2 && c.Paths[0] == "/tmp/a" && c.Paths[1] == "/tmp/b" {
			break
		}
	}
}

func TestReadiness(t *testing.T) {
	p := newPlace(t, nil)
	if err := p.sb.WaitUntilReady(p.ctx, time.Second, nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a probe: %v", err)
	}
	probe, err := modal.NewExecProbe([]string{"test", "-e", "/tmp/ready"}, &modal.ExecProbeParams{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	sb := p.create(&modal.SandboxCreateParams{ReadinessProbe: probe})
	var late modal.TimeoutError
	if err := sb.WaitUntilReady(p.ctx, 300*time.Millisecond, nil); !errors.As(err, &late) && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("not ready: %v", err)
	}
	if _, err := sb.Exec(p.ctx, []string{"touch", "/tmp/ready"}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := sb.WaitUntilReady(p.ctx, time.Minute, nil); err != nil {
			t.Error(err)
		}
	}
	if probe, err = modal.NewTCPProbe(8080, nil); err != nil {
		t.Fatal(err)
	}
	sb = p.create(&modal.SandboxCreateParams{ReadinessProbe: probe})
	done := make(chan error, 1)
	go func() { done <- sb.WaitUntilReady(p.ctx, time.Minute, nil) }()
	if _, err := sb.Exec(p.ctx, []string{"python3", "-m", "http.server", "8080"}, nil); err != nil {
		t.Skip("no program that listens: ", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	sb = p.create(&modal.SandboxCreateParams{ReadinessProbe: probe})
	go func() { done <- sb.WaitUntilReady(p.ctx, time.Minute, nil) }()
	if _, err := sb.Terminate(p.ctx, nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a sandbox that ended became ready")
	}
}

func TestSidecars(t *testing.T) {
	p := newPlace(t, nil)
	image, err := p.image.Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, viaRouter := range []string{"1", "0"} {
		t.Setenv("MODAL_USE_CONTROL_PLANE_SIDECAR_CREATE", viaRouter)
		name := "side" + viaRouter
		side, err := p.sb.ExperimentalSidecars.Create(p.ctx, name, image, &modal.SidecarCreateParams{
			Command: []string{"sleep", "999"}, Env: map[string]string{"WHO": name}, Workdir: "/tmp",
		})
		if err != nil {
			t.Fatal(err)
		}
		if side.ContainerID == "" || side.ContainerName != name {
			t.Errorf("%q %q", side.ContainerID, side.ContainerName)
		}
		var taken modal.AlreadyExistsError
		if _, err := p.sb.ExperimentalSidecars.Create(p.ctx, name, image, nil); !errors.As(err, &taken) {
			t.Errorf("the same name again: %v", err)
		}
		cp, err := side.Exec(p.ctx, []string{"/bin/sh", "-c", "pwd; echo $WHO"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(cp.Stdout); string(out) != "/tmp\n"+name+"\n" || err != nil {
			t.Errorf("%q %v", out, err)
		}
		if err := side.Filesystem.WriteText(p.ctx, "x", "/tmp/side", nil); err != nil {
			t.Error(err)
		}
		if code, err := side.Poll(p.ctx, nil); code != nil || err != nil {
			t.Errorf("it runs: %v %v", code, err)
		}
		if _, err := side.Terminate(p.ctx, nil); err != nil {
			t.Error(err)
		}
		if code, err := side.Wait(p.ctx, nil); code != 137 || err != nil {
			t.Errorf("%d %v", code, err)
		}
		if _, err := side.Exec(p.ctx, []string{"true"}, nil); status.Code(err) != codes.NotFound {
			t.Errorf("a start in what has ended: %v", err)
		}
		var missing modal.NotFoundError
		if _, err := p.sb.ExperimentalSidecars.Get(p.ctx, name, nil); !errors.As(err, &missing) {
			t.Errorf("%v", err)
		}
		if got, err := p.sb.ExperimentalSidecars.Get(p.ctx, name, &modal.SidecarGetParams{IncludeTerminated: true}); err != nil || got.ContainerID != side.ContainerID {
			t.Errorf("%v", err)
		}
	}
	if got := p.sh("ls -A /tmp"); got != "" {
		t.Errorf("the main container sees %q", got)
	}
	if all, err := p.sb.ExperimentalSidecars.List(p.ctx, nil); len(all) != 0 || err != nil {
		t.Errorf("%v %v", all, err)
	}
	if all, err := p.sb.ExperimentalSidecars.List(p.ctx, &modal.SidecarListParams{IncludeTerminated: true}); len(all) != 2 || err != nil {
		t.Errorf("%v %v", all, err)
	}
}

func TestSnapshots(t *testing.T) {
	p := newPlace(t, nil)
	p.sh("mkdir -p /tmp/dir; echo kept > /tmp/dir/file")
	whole, err := p.sb.SnapshotFilesystem(p.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.sh("echo changed > /tmp/dir/file")
	p.image, p.sb = whole, nil
	p.sb = p.create(nil)
	if got := p.sh("cat /tmp/dir/file"); got != "kept\n" {
		t.Errorf("%q", got)
	}
	key := []byte("a key of the client's own, long enough")
	open, err := p.sb.SnapshotDirectory(p.ctx, "/tmp/dir", &modal.SandboxSnapshotDirectoryParams{TTL: modal.NoExpiryTTL})
	if err != nil {
		t.Fatal(err)
	}
	locked, err := p.sb.SnapshotDirectory(p.ctx, "/tmp/dir", &modal.SandboxSnapshotDirectoryParams{ExperimentalEncryptionKey: key})
	if err != nil {
		t.Fatal(err)
	}
	p.sh("mkdir /tmp/a /tmp/b; echo below > /tmp/a/below")
	with := func(key []byte) *modal.SandboxMountImageParams {
		return &modal.SandboxMountImageParams{ExperimentalEncryptionKey: key}
	}
	for _, wrong := range [][]byte{nil, []byte("some other key of the same sort")} {
		if err := p.sb.MountImage(p.ctx, "/tmp/b", locked, with(wrong)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("with the key %q: %v", wrong, err)
		}
	}
	if err := p.sb.MountImage(p.ctx, "/tmp/b", locked, with(key)); err != nil {
		t.Fatal(err)
	}
	if err := p.sb.MountImage(p.ctx, "/tmp/a", open, nil); err != nil {
		t.Fatal(err)
	}
	if got := p.sh("cat /tmp/a/file /tmp/b/file; echo more > /tmp/a/more; ls /tmp/a"); got != "kept\nkept\nfile\nmore\n" {
		t.Errorf("%q", got)
	}
	if err := p.sb.UnmountImage(p.ctx, "/tmp/a", nil); err != nil {
		t.Fatal(err)
	}
	if got := p.sh("ls /tmp/a"); got != "below\n" {
		t.Errorf("%q", got)
	}
	if err := p.sb.MountImage(p.ctx, "/tmp/a", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := p.sh("ls -A /tmp/a"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestNetworkPolicy(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{BlockNetwork: true})
	set := func(cidrs, domains []string) error {
		return p.sb.UpdateNetworkPolicy(p.ctx, &modal.SandboxUpdateNetworkPolicyParams{
			OutboundCIDRAllowlist:   &modal.Allowlist{Entries: cidrs},
			OutboundDomainAllowlist: &modal.Allowlist{Entries: domains},
		})
	}
	if err := set([]string{"10.0.0.0/8"}, []string{"example.com", "*.example.org"}); err != nil {
		t.Error(err)
	}
	if err := set([]string{"nonsense"}, nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

// rawRouter is the router without the client.
func rawRouter(t *testing.T, server *modaltest.Server) pb.TaskCommandRouterClient {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(server.URL(), "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewTaskCommandRouterClient(conn)
}

// access gets what a client needs for the router.
func (p *place) access(sb *modal.Sandbox) (task string, ctx context.Context) {
	p.t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(p.server.URL(), "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	api := pb.NewModalClientClient(conn)
	ctx = metadata.AppendToOutgoingContext(p.ctx, "x-modal-token-id", "x", "x-modal-token-secret", "x")
	token, err := api.AuthTokenGet(ctx, &pb.AuthTokenGetRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-modal-auth-token", token.GetToken())
	id, err := api.SandboxGetTaskIdV2(ctx, pb.SandboxGetTaskIdRequest_builder{SandboxId: sb.SandboxID}.Build())
	if err != nil {
		p.t.Fatal(err)
	}
	way, err := api.SandboxGetCommandRouterAccess(ctx, pb.SandboxGetCommandRouterAccessRequest_builder{SandboxId: &sb.SandboxID}.Build())
	if err != nil {
		p.t.Fatal(err)
	}
	return id.GetTaskId(), metadata.AppendToOutgoingContext(p.ctx, "authorization", "Bearer "+way.GetJwt())
}

func TestRouterTokens(t *testing.T) {
	p := newPlace(t, nil)
	router := rawRouter(t, p.server)
	task, ctx := p.access(p.sb)
	other, otherCtx := p.access(p.create(nil))
	list := func(ctx context.Context, task string) codes.Code {
		_, err := router.TaskContainerList(ctx, pb.TaskContainerListRequest_builder{TaskId: task}.Build())
		return status.Code(err)
	}
	bad := metadata.AppendToOutgoingContext(p.ctx, "authorization", "Bearer a.b.c")
	for what, got := range map[string][2]codes.Code{
		"its own":        {list(ctx, task), codes.OK},
		"the other's":    {list(otherCtx, task), codes.PermissionDenied},
		"other, its own": {list(otherCtx, other), codes.OK},
		"none":           {list(p.ctx, task), codes.Unauthenticated},
		"nonsense":       {list(bad, task), codes.Unauthenticated},
		"unknown task":   {list(ctx, "ta-none"), codes.PermissionDenied},
	} {
		if got[0] != got[1] {
			t.Errorf("token %s: %v, want %v", what, got[0], got[1])
		}
	}
	t.Cleanup(p.server.Inject(modaltest.Fault{Method: "TaskContainerList", ExpireTokens: true}))
	if got := list(ctx, task); got != codes.Unauthenticated {
		t.Errorf("expired: %v", got)
	}
}

// What no client of Modal's would send.
func TestNonsense(t *testing.T) {
	p := newPlace(t, nil)
	router := rawRouter(t, p.server)
	task, ctx := p.access(p.sb)
	start := func(b pb.TaskExecStartRequest_builder) error {
		b.TaskId = task
		_, err := router.TaskExecStart(ctx, b.Build())
		return err
	}
	if err := start(pb.TaskExecStartRequest_builder{ExecId: "x", CommandArgs: []string{"cat"}}); err != nil {
		t.Fatal(err)
	}
	read := func(exec string, off uint64, fd pb.TaskExecStdioFileDescriptor) error {
		s, err := router.TaskExecStdioRead(ctx, pb.TaskExecStdioReadRequest_builder{TaskId: task, ExecId: exec, Offset: off, FileDescriptor: fd}.Build())
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	}
	write := func(off uint64, data string, eof bool) error {
		_, err := router.TaskExecStdinWrite(ctx, pb.TaskExecStdinWriteRequest_builder{TaskId: task, ExecId: "x", Offset: off, Data: []byte(data), Eof: eof}.Build())
		return err
	}
	stream := func(first *pb.TaskExecStdinWriteStreamRequest) error {
		s, err := router.TaskExecStdinWriteStream(ctx)
		if err == nil && first != nil {
			err = s.Send(first)
		}
		if err != nil {
			return err
		}
		_, err = s.CloseAndRecv()
		return err
	}
	ttl := int64(0)
	_, noTTL := router.TaskSnapshotFilesystem(ctx, pb.TaskSnapshotFilesystemRequest_builder{TaskId: task, SnapshotId: "s"}.Build())
	_, badTTL := router.TaskSnapshotFilesystem(ctx, pb.TaskSnapshotFilesystemRequest_builder{TaskId: task, SnapshotId: "s", TtlSeconds: &ttl}.Build())
	_, relative := router.TaskSnapshotDirectory(ctx, pb.TaskSnapshotDirectoryRequest_builder{TaskId: task, Path: []byte("tmp")}.Build())
	_, noImage := router.TaskMountDirectory(ctx, pb.TaskMountDirectoryRequest_builder{TaskId: task, Path: []byte("/tmp/x"), ImageId: "im-none"}.Build())
	_, noExec := router.TaskExecWait(ctx, pb.TaskExecWaitRequest_builder{TaskId: task, ExecId: "none"}.Build())
	_, noContainer := router.TaskContainerWait(ctx, pb.TaskContainerWaitRequest_builder{TaskId: task, ContainerId: "none"}.Build())
	_, main := router.TaskContainerTerminate(ctx, pb.TaskContainerTerminateRequest_builder{TaskId: task}.Build())
	_, memory := router.TaskSnapshotMemory(ctx, pb.TaskSnapshotMemoryRequest_builder{TaskId: task}.Build())
	_, open := router.TaskSetNetworkAccess(ctx, pb.TaskSetNetworkAccessRequest_builder{TaskId: task}.Build())
	dir := "relative"
	for i, tt := range []struct {
		err  error
		want codes.Code
	}{
		{start(pb.TaskExecStartRequest_builder{CommandArgs: []string{"true"}}), codes.InvalidArgument},
		{start(pb.TaskExecStartRequest_builder{ExecId: "y"}), codes.InvalidArgument},
		{start(pb.TaskExecStartRequest_builder{ExecId: "y", CommandArgs: []string{"true"}, Workdir: &dir}), codes.InvalidArgument},
		{start(pb.TaskExecStartRequest_builder{ExecId: "y", CommandArgs: []string{"true"}, ContainerId: "none"}), codes.NotFound},
		{start(pb.TaskExecStartRequest_builder{ExecId: "y", CommandArgs: []string{"true"}, SecretIds: []string{"st-none"}}), codes.NotFound},
		{start(pb.TaskExecStartRequest_builder{ExecId: "y", CommandArgs: []string{"true"}, Env: map[string]string{"A=B": ""}}), codes.InvalidArgument},
		{start(pb.TaskExecStartRequest_builder{ExecId: "x", CommandArgs: []string{"cat"}}), codes.OK},
		{read("none", 0, 1), codes.NotFound},
		{read("x", 0, 9), codes.InvalidArgument},
		{read("x", 1<<63, pb.TaskExecStdioFileDescriptor_TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT), codes.InvalidArgument},
		{write(5, "x", false), codes.OutOfRange},
		{stream(nil), codes.InvalidArgument},
		{stream(pb.TaskExecStdinWriteStreamRequest_builder{Data: []byte("x")}.Build()), codes.InvalidArgument},
		{stream(pb.TaskExecStdinWriteStreamRequest_builder{Start: pb.TaskExecStdinWriteStreamStart_builder{TaskId: task, ExecId: "x"}.Build()}.Build()), codes.InvalidArgument},
		{write(0, "x", true), codes.OK},
		{write(0, "x", true), codes.OK},
		{write(1, "y", false), codes.FailedPrecondition},
		{noTTL, codes.InvalidArgument},
		{badTTL, codes.InvalidArgument},
		{relative, codes.InvalidArgument},
		{noImage, codes.NotFound},
		{noExec, codes.NotFound},
		{noContainer, codes.NotFound},
		{main, codes.InvalidArgument},
		{memory, codes.FailedPrecondition},
		{open, codes.InvalidArgument},
	} {
		if got := status.Code(tt.err); got != tt.want {
			t.Errorf("%d: %v, want %v", i, tt.err, tt.want)
		}
	}
}
