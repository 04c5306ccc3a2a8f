package modalemu

import (
	"context"
	"maps"
	"strings"
	"time"
	"unicode"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// longPoll bounds how long a call waits, whatever its client asks for.
	longPoll = 60 * time.Second
	// listPage is how many sandboxes one answer lists.
	listPage = 100
	// connectTokenLife is how long a connect token is good for.
	connectTokenLife = 24 * time.Hour
)

// SandboxCreateV2 implements the service.
func (s *Server) SandboxCreateV2(ctx context.Context, req *pb.SandboxCreateV2Request) (*pb.SandboxCreateV2Response, error) {
	if len(req.GetCloudBucketMountCredentials()) > 0 {
		return nil, refused("buckets cannot be mounted with credentials that are no secret's")
	}
	if gpu := req.GetDefinition().GetResources().GetGpuConfig(); gpu.GetCount() > 0 {
		return nil, invalid("GPUs are not supported by this version of the API")
	}
	sb, err := s.create(ctx, &order{
		appID: req.GetAppId(), definition: req.GetDefinition(), tags: req.GetTags(),
		sources: req.GetSecretSources(), ephemeral: req.GetEphemeralSecrets().GetContents(),
	})
	if err != nil {
		return nil, err
	}
	return pb.SandboxCreateV2Response_builder{
		SandboxId: sb.id,
		TaskId:    sb.task.id,
		Tunnels:   sb.tunnelData(),
		Metadata:  sb.metadata(),
		CommandRouterAccess: pb.CommandRouterAccess_builder{
			Jwt: s.routerToken(sb), Url: s.routerURL(),
		}.Build(),
	}.Build(), nil
}

func (s *Server) routerToken(sb *sandbox) string {
	return s.tokens.issue(forRouter, sb.task.id, s.tokenLife(routerTokenLife))
}

func (sb *sandbox) tunnelData() []*pb.TunnelData {
	if sb.tunnels == nil {
		return nil
	}
	return sb.tunnels.data()
}

func (sb *sandbox) metadata() *pb.SandboxHandleMetadata {
	return pb.SandboxHandleMetadata_builder{AppId: sb.app.ID, Result: sb.task.main.outcome()}.Build()
}

// find finds a sandbox of either interface by its id.
func (s *Server) find(id string, v1 bool) (*sandbox, error) {
	sb, err := s.boxes.get(id)
	if err == nil && sb.v1 != v1 {
		return nil, status.Errorf(codes.NotFound, "Sandbox with ID '%s' not found in this version of the API", id)
	}
	return sb, err
}

// pollTime is how long a client wants to wait, within what is sensible.
func pollTime(seconds float32) time.Duration {
	return min(time.Duration(float64(seconds)*float64(time.Second)), longPoll)
}

// SandboxGetTaskIdV2 implements the service.
func (s *Server) SandboxGetTaskIdV2(_ context.Context, req *pb.SandboxGetTaskIdRequest) (*pb.SandboxGetTaskIdResponse, error) {
	return s.taskID(req, false)
}

// taskID tells the task of a sandbox that has ended too: its output and its
// logs can be read still.
func (s *Server) taskID(req *pb.SandboxGetTaskIdRequest, v1 bool) (*pb.SandboxGetTaskIdResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	return pb.SandboxGetTaskIdResponse_builder{TaskId: &sb.task.id, TaskResult: sb.task.main.outcome()}.Build(), nil
}

// SandboxGetCommandRouterAccess implements the service.
func (s *Server) SandboxGetCommandRouterAccess(_ context.Context, req *pb.SandboxGetCommandRouterAccessRequest) (*pb.SandboxGetCommandRouterAccessResponse, error) {
	id := req.GetSandboxId()
	if id == "" {
		t, err := s.task(req.GetTaskId())
		if err != nil {
			return nil, err
		}
		id = t.sandboxID
	}
	sb, err := s.find(id, false)
	if err != nil {
		return nil, err
	}
	return pb.SandboxGetCommandRouterAccessResponse_builder{Jwt: s.routerToken(sb), Url: s.routerURL()}.Build(), nil
}

// SandboxWaitV2 implements the service.
func (s *Server) SandboxWaitV2(ctx context.Context, req *pb.SandboxWaitRequest) (*pb.SandboxWaitResponse, error) {
	return s.wait(ctx, req, false)
}

func (s *Server) wait(ctx context.Context, req *pb.SandboxWaitRequest, v1 bool) (*pb.SandboxWaitResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	result := sb.task.main.await(ctx, pollTime(req.GetTimeout()))
	if result == nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return pb.SandboxWaitResponse_builder{Result: result, Metadata: sb.metadata()}.Build(), nil
}

// SandboxTerminateV2 implements the service. It returns when the sandbox has ended.
func (s *Server) SandboxTerminateV2(ctx context.Context, req *pb.SandboxTerminateRequest) (*pb.SandboxTerminateResponse, error) {
	return s.terminate(ctx, req, false)
}

func (s *Server) terminate(ctx context.Context, req *pb.SandboxTerminateRequest, v1 bool) (*pb.SandboxTerminateResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	main := sb.task.main
	if result := main.outcome(); result != nil {
		return pb.SandboxTerminateResponse_builder{ExistingResult: result}.Build(), nil
	}
	main.settle(ctx)
	main.end(endTerminated)
	select {
	case <-main.ended:
		return &pb.SandboxTerminateResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// SandboxGetFromNameV2 implements the service.
func (s *Server) SandboxGetFromNameV2(_ context.Context, req *pb.SandboxGetFromNameRequest) (*pb.SandboxGetFromNameResponse, error) {
	return s.fromName(req, false)
}

func (s *Server) fromName(req *pb.SandboxGetFromNameRequest, v1 bool) (*pb.SandboxGetFromNameResponse, error) {
	var app *appRecord
	s.store.read(func(r *records) { app = r.app(req.GetAppName(), req.GetEnvironmentName()) })
	if app == nil {
		return nil, status.Errorf(codes.NotFound, "App '%s' not found in environment '%s'", req.GetAppName(), environmentName(req.GetEnvironmentName()))
	}
	var ended *sandbox
	for _, sb := range s.boxes.all(func(sb *sandbox) bool {
		return sb.v1 == v1 && sb.app.ID == app.ID && sb.called() == req.GetSandboxName() && sb.called() != ""
	}) {
		if !sb.task.main.hasEnded() {
			return pb.SandboxGetFromNameResponse_builder{SandboxId: sb.id}.Build(), nil
		}
		if ended == nil {
			ended = sb
		}
	}
	if ended == nil || !req.GetIncludeTerminated() {
		return nil, status.Errorf(codes.NotFound, "Sandbox with name '%s' not found in App '%s'", req.GetSandboxName(), req.GetAppName())
	}
	return pb.SandboxGetFromNameResponse_builder{SandboxId: ended.id}.Build(), nil
}

// called is the sandbox's name, or "".
func (sb *sandbox) called() string {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.name
}

// SandboxSetName implements the service.
func (s *Server) SandboxSetName(_ context.Context, req *pb.SandboxSetNameRequest) (*pb.SandboxSetNameResponse, error) {
	sb, err := s.find(req.GetSandboxId(), false)
	if err != nil {
		return nil, err
	}
	if err := checkName("Sandbox", req.GetName()); err != nil {
		return nil, err
	}
	return &pb.SandboxSetNameResponse{}, s.boxes.setName(sb, req.GetName())
}

// SandboxTagsSetV2 implements the service: the tags take the place of all others.
func (s *Server) SandboxTagsSetV2(_ context.Context, req *pb.SandboxTagsSetRequest) (*emptypb.Empty, error) {
	return s.setTags(req, false)
}

func (s *Server) setTags(req *pb.SandboxTagsSetRequest, v1 bool) (*emptypb.Empty, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	tags, err := tagMap(req.GetTags())
	if err != nil {
		return nil, err
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.tags = tags
	return &emptypb.Empty{}, nil
}

// SandboxTagsGetV2 implements the service.
func (s *Server) SandboxTagsGetV2(_ context.Context, req *pb.SandboxTagsGetRequest) (*pb.SandboxTagsGetResponse, error) {
	return s.getTags(req, false)
}

func (s *Server) getTags(req *pb.SandboxTagsGetRequest, v1 bool) (*pb.SandboxTagsGetResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	return pb.SandboxTagsGetResponse_builder{Tags: sb.tagList()}.Build(), nil
}

func (sb *sandbox) tagList() []*pb.SandboxTag {
	sb.mu.Lock()
	tags := maps.Clone(sb.tags)
	sb.mu.Unlock()
	list := make([]*pb.SandboxTag, 0, len(tags))
	for _, name := range names(tags) {
		list = append(list, pb.SandboxTag_builder{TagName: name, TagValue: tags[name]}.Build())
	}
	return list
}

// has reports whether the sandbox has all of these tags.
func (sb *sandbox) has(tags []*pb.SandboxTag) bool {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	for _, tag := range tags {
		if v, ok := sb.tags[tag.GetTagName()]; !ok || v != tag.GetTagValue() {
			return false
		}
	}
	return true
}

// SandboxListV2 implements the service: it lists the sandboxes of both interfaces.
func (s *Server) SandboxListV2(_ context.Context, req *pb.SandboxListRequest) (*pb.SandboxListResponse, error) {
	return s.list(req, func(*sandbox) bool { return true })
}

func (s *Server) list(req *pb.SandboxListRequest, keep func(*sandbox) bool) (*pb.SandboxListResponse, error) {
	if req.GetAppId() != "" {
		if _, err := s.app(req.GetAppId()); err != nil {
			return nil, err
		}
	}
	found := s.boxes.all(func(sb *sandbox) bool {
		switch {
		case !keep(sb), !req.GetIncludeFinished() && sb.task.main.hasEnded():
			return false
		case req.GetBeforeTimestamp() > 0 && seconds(sb.createdAt) >= req.GetBeforeTimestamp():
			return false
		case req.GetAppId() != "" && sb.app.ID != req.GetAppId():
			return false
		case req.GetAppId() == "" && sb.app.Environment != environmentName(req.GetEnvironmentName()):
			return false
		}
		return sb.has(req.GetTags())
	})
	infos := make([]*pb.SandboxInfo, 0, listPage)
	for _, sb := range found[:min(len(found), listPage)] {
		infos = append(infos, sb.info())
	}
	return pb.SandboxListResponse_builder{Sandboxes: infos}.Build(), nil
}

func (sb *sandbox) info() *pb.SandboxInfo {
	def := sb.task.main.definition
	idle := def.GetIdleTimeoutSecs()
	return pb.SandboxInfo_builder{
		Id: sb.id, CreatedAt: seconds(sb.createdAt), AppId: sb.app.ID, Name: sb.called(), Tags: sb.tagList(),
		ImageId: sb.imageID, TimeoutSecs: def.GetTimeoutSecs(), IdleTimeoutSecs: &idle,
		Regions: def.GetSchedulerPlacement().GetRegions(), ReadinessProbe: def.GetReadinessProbe(),
		Tunnels: sb.tunnelData(), Metadata: sb.metadata(),
		TaskInfo: pb.TaskInfo_builder{
			Id: sb.task.id, SandboxId: sb.id, StartedAt: seconds(sb.createdAt), EnqueuedAt: seconds(sb.createdAt),
			Result: sb.task.main.outcome(),
		}.Build(),
	}.Build()
}

// SandboxGetTunnelsV2 implements the service.
func (s *Server) SandboxGetTunnelsV2(_ context.Context, req *pb.SandboxGetTunnelsRequest) (*pb.SandboxGetTunnelsResponse, error) {
	return s.getTunnels(req, false)
}

func (s *Server) getTunnels(req *pb.SandboxGetTunnelsRequest, v1 bool) (*pb.SandboxGetTunnelsResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	return pb.SandboxGetTunnelsResponse_builder{Tunnels: sb.tunnelData(), Result: sb.task.main.outcome()}.Build(), nil
}

// SandboxCreateConnectTokenV2 implements the service.
func (s *Server) SandboxCreateConnectTokenV2(_ context.Context, req *pb.SandboxCreateConnectTokenRequest) (*pb.SandboxCreateConnectTokenResponse, error) {
	return s.connectToken(req, false)
}

func (s *Server) connectToken(req *pb.SandboxCreateConnectTokenRequest, v1 bool) (*pb.SandboxCreateConnectTokenResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	if sb.task.main.hasEnded() {
		return nil, finished(sb.id)
	}
	port := 8080
	if req.HasPort() {
		port = int(req.GetPort())
	}
	if port < 1 || port > 65535 {
		return nil, invalid("port must be in [1, 65535], got %d", port)
	}
	if strings.ContainsFunc(req.GetUserMetadata(), unicode.IsControl) {
		return nil, invalid("user metadata becomes a header, and cannot have control characters")
	}
	url, err := s.connectURL(sb)
	if err != nil {
		return nil, err
	}
	token := s.tokens.sign(claims{Audience: forConnect, Subject: sb.id, Port: port, Metadata: req.GetUserMetadata()}, connectTokenLife)
	return pb.SandboxCreateConnectTokenResponse_builder{Url: url, Token: token}.Build(), nil
}

// SandboxContainerCreateV2 implements the service.
func (s *Server) SandboxContainerCreateV2(ctx context.Context, req *pb.SandboxContainerCreateV2Request) (*pb.SandboxContainerCreateV2Response, error) {
	sb, err := s.boxes.get(req.GetSandboxId())
	if err != nil {
		return nil, err
	}
	if len(req.GetCloudBucketMountCredentials()) > 0 {
		return nil, refused("buckets cannot be mounted with credentials that are no secret's")
	}
	c, err := s.createSidecar(ctx, sb.task, req.GetContainerName(), &order{
		definition: req.GetDefinition(), sources: req.GetSecretSources(), ephemeral: req.GetEphemeralSecrets().GetContents(),
	})
	if err != nil {
		return nil, err
	}
	return pb.SandboxContainerCreateV2Response_builder{ContainerId: c.id, ContainerName: c.name}.Build(), nil
}

// SandboxGetExitSnapshotV2 implements the service.
func (s *Server) SandboxGetExitSnapshotV2(ctx context.Context, req *pb.SandboxGetExitSnapshotRequest) (*pb.SandboxGetExitSnapshotResponse, error) {
	return s.getExitSnapshot(ctx, req, false)
}

// noMemory refuses to save what the processes of a sandbox have in memory.
func noMemory() error {
	return refused("the memory of a sandbox cannot be saved, which takes a virtual machine or CRIU; SnapshotFilesystem saves its files")
}

// SandboxSnapshotGet implements the service. There are no memory snapshots.
func (s *Server) SandboxSnapshotGet(_ context.Context, req *pb.SandboxSnapshotGetRequest) (*pb.SandboxSnapshotGetResponse, error) {
	return nil, status.Errorf(codes.NotFound, "Snapshot '%s' not found: the emulator takes no snapshots of memory", req.GetSnapshotId())
}

// SandboxRestoreV2 implements the service. There are no memory snapshots.
func (s *Server) SandboxRestoreV2(_ context.Context, req *pb.SandboxRestoreV2Request) (*pb.SandboxRestoreV2Response, error) {
	return nil, status.Errorf(codes.NotFound, "Snapshot '%s' not found: the emulator takes no snapshots of memory", req.GetSnapshotId())
}
