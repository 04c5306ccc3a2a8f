package modalemu

import (
	"context"
	"slices"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TaskContainerCreate implements the service.
func (r *router) TaskContainerCreate(ctx context.Context, req *pb.TaskContainerCreateRequest) (*pb.TaskContainerCreateResponse, error) {
	t, err := r.task(ctx, req.GetTaskId())
	if err != nil {
		return nil, err
	}
	if t.main.hasEnded() {
		return nil, t.main.gone()
	}
	def := pb.Sandbox_builder{
		ImageId: req.GetImageId(), EntrypointArgs: req.GetArgs(), SecretIds: req.GetSecretIds(),
		VolumeMounts: req.GetVolumeMounts(), NetworkAccess: req.GetNetworkAccess(), PtyInfo: req.GetPtyInfo(),
	}
	if dir := req.GetWorkdir(); dir != "" {
		def.Workdir = &dir
	}
	if mib := req.GetMemoryReserveConsumeMib(); mib > 0 {
		def.Resources = pb.Resources_builder{MemoryMb: mib}.Build()
	}
	c, err := r.server.createSidecar(ctx, t, req.GetContainerName(), &order{
		definition: def.Build(), sources: req.GetSecretSources(), ephemeral: req.GetEnv(),
	})
	if err != nil {
		return nil, err
	}
	return pb.TaskContainerCreateResponse_builder{ContainerId: c.id, ContainerName: c.name}.Build(), nil
}

// describe is a container as the protocol has it.
func (c *container) describe() *pb.TaskContainerInfo {
	info := pb.TaskContainerInfo_builder{
		ContainerId: c.id, ContainerName: c.name, Status: "running", Result: c.outcome(),
	}
	if info.Result != nil {
		info.Status = "terminated"
	}
	return info.Build()
}

// TaskContainerGet implements the service.
func (r *router) TaskContainerGet(ctx context.Context, req *pb.TaskContainerGetRequest) (*pb.TaskContainerGetResponse, error) {
	t, err := r.task(ctx, req.GetTaskId())
	if err != nil {
		return nil, err
	}
	c := t.main
	if req.GetContainerName() != mainName {
		c = t.sidecar(req.GetContainerName())
	}
	if c == nil || c.hasEnded() && !req.GetIncludeTerminated() {
		return nil, status.Errorf(codes.NotFound, "Container '%s' not found", req.GetContainerName())
	}
	return pb.TaskContainerGetResponse_builder{Container: c.describe()}.Build(), nil
}

// TaskContainerList implements the service: in the order of their creation.
func (r *router) TaskContainerList(ctx context.Context, req *pb.TaskContainerListRequest) (*pb.TaskContainerListResponse, error) {
	t, err := r.task(ctx, req.GetTaskId())
	if err != nil {
		return nil, err
	}
	all := t.containers()
	slices.SortFunc(all, func(a, b *container) int { return a.createdAt.Compare(b.createdAt) })
	var infos []*pb.TaskContainerInfo
	for _, c := range all {
		if !c.hasEnded() || req.GetIncludeTerminated() {
			infos = append(infos, c.describe())
		}
	}
	return pb.TaskContainerListResponse_builder{Containers: infos}.Build(), nil
}

// TaskContainerWait implements the service: the answer is empty when the
// container still runs after the time the client gives.
func (r *router) TaskContainerWait(ctx context.Context, req *pb.TaskContainerWaitRequest) (*pb.TaskContainerWaitResponse, error) {
	c, err := r.container(ctx, req.GetTaskId(), req.GetContainerId())
	if err != nil {
		return nil, err
	}
	result := c.await(ctx, duration(req.GetTimeout()))
	if result == nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return pb.TaskContainerWaitResponse_builder{Result: result}.Build(), nil
}

// TaskContainerTerminate implements the service: it returns when the container
// has ended.
func (r *router) TaskContainerTerminate(ctx context.Context, req *pb.TaskContainerTerminateRequest) (*pb.TaskContainerTerminateResponse, error) {
	c, err := r.container(ctx, req.GetTaskId(), req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if c == c.task.main {
		return nil, invalid("the main container ends with its sandbox")
	}
	c.end(endTerminated)
	select {
	case <-c.ended:
		return &pb.TaskContainerTerminateResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
