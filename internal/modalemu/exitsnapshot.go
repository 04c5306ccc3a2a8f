package modalemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// snapshotLife is how long the image of an exit snapshot is kept.
	snapshotLife = 30 * 24 * time.Hour
	// exitSnapshotWait bounds the taking of one, which holds up the sandbox's end.
	exitSnapshotWait = 2 * time.Minute
)

// exitSnapshot is the image of a sandbox's files at its end.
type exitSnapshot struct {
	done    chan struct{} // closed once one of the others is set
	imageID string
	err     error
}

func newExitSnapshot() *exitSnapshot { return &exitSnapshot{done: make(chan struct{})} }

// takeExitSnapshot saves the files of a sandbox that is about to end.
func (s *Server) takeExitSnapshot(sb *sandbox) {
	x := sb.snapshot
	defer close(x.done)
	ctx, cancel := context.WithTimeout(context.Background(), exitSnapshotWait)
	defer cancel()
	img, err := s.snapshot(ctx, sb.task.main, int64(snapshotLife/time.Second))
	if err != nil {
		s.log.Error("no exit snapshot was taken", "sandbox", sb.id, "error", err)
		x.err = err
		return
	}
	x.imageID = img.ID
}

// snapshot saves the files of a container as an image.
func (s *Server) snapshot(ctx context.Context, c *container, ttl int64) (*imageRecord, error) {
	box, ok := c.box.(driver.Snapshotter)
	if !ok {
		return nil, refused("files cannot be saved")
	}
	id, err := box.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	from := s.store.image(c.definition.GetImageId())
	if from == nil {
		from = &imageRecord{} // deleted meanwhile
	}
	return s.addSnapshot(id, from, ttl, nil)
}

func (s *Server) getExitSnapshot(ctx context.Context, req *pb.SandboxGetExitSnapshotRequest, v1 bool) (*pb.SandboxGetExitSnapshotResponse, error) {
	sb, err := s.find(req.GetSandboxId(), v1)
	if err != nil {
		return nil, err
	}
	x := sb.snapshot
	if x == nil {
		return nil, invalid("Exit snapshots were not enabled for Sandbox '%s': create it with the experimental option %q", sb.id, exitSnapshotOption)
	}
	t := time.NewTimer(pollTime(req.GetTimeout()))
	defer t.Stop()
	select {
	case <-x.done:
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-x.done:
	default:
		return pb.SandboxGetExitSnapshotResponse_builder{Pending: &pb.SandboxGetExitSnapshotResponse_Pending{}}.Build(), nil
	}
	if x.err != nil {
		return pb.SandboxGetExitSnapshotResponse_builder{Error: x.failure()}.Build(), nil
	}
	return pb.SandboxGetExitSnapshotResponse_builder{
		Success: pb.SandboxGetExitSnapshotResponse_Success_builder{ImageId: x.imageID}.Build(),
	}.Build(), nil
}

func (x *exitSnapshot) failure() *pb.SandboxGetExitSnapshotResponse_Error {
	code := pb.SandboxGetExitSnapshotResponse_ERROR_CODE_FILESYSTEM_INCONSISTENT
	if errors.Is(x.err, context.DeadlineExceeded) {
		code = pb.SandboxGetExitSnapshotResponse_ERROR_CODE_TIMEOUT
	}
	return pb.SandboxGetExitSnapshotResponse_Error_builder{
		ErrorCode: code, Message: "The files of the sandbox could not be saved: " + status.Convert(toStatus(x.err)).Message(),
	}.Build()
}
