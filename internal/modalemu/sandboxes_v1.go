package modalemu

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

// The older interface, which the client uses for sandboxes with a GPU. It
// differs in the ids, and in that stdin and stdout go by the control plane.

// SandboxCreate implements the service.
func (s *Server) SandboxCreate(ctx context.Context, req *pb.SandboxCreateRequest) (*pb.SandboxCreateResponse, error) {
	sb, err := s.create(ctx, &order{v1: true, appID: req.GetAppId(), definition: req.GetDefinition(), tags: req.GetTags()})
	if err != nil {
		return nil, err
	}
	return pb.SandboxCreateResponse_builder{SandboxId: sb.id, Metadata: sb.metadata()}.Build(), nil
}

// SandboxGetTaskId implements the service.
func (s *Server) SandboxGetTaskId(_ context.Context, req *pb.SandboxGetTaskIdRequest) (*pb.SandboxGetTaskIdResponse, error) {
	return s.taskID(req, true)
}

// TaskGetCommandRouterAccess implements the service.
func (s *Server) TaskGetCommandRouterAccess(_ context.Context, req *pb.TaskGetCommandRouterAccessRequest) (*pb.TaskGetCommandRouterAccessResponse, error) {
	t, err := s.task(req.GetTaskId())
	if err != nil {
		return nil, err
	}
	sb, err := s.boxes.get(t.sandboxID)
	if err != nil {
		return nil, err
	}
	return pb.TaskGetCommandRouterAccessResponse_builder{Jwt: s.routerToken(sb), Url: s.routerURL()}.Build(), nil
}

// SandboxWait implements the service.
func (s *Server) SandboxWait(ctx context.Context, req *pb.SandboxWaitRequest) (*pb.SandboxWaitResponse, error) {
	return s.wait(ctx, req, true)
}

// SandboxTerminate implements the service.
func (s *Server) SandboxTerminate(ctx context.Context, req *pb.SandboxTerminateRequest) (*pb.SandboxTerminateResponse, error) {
	return s.terminate(ctx, req, true)
}

// SandboxGetFromName implements the service.
func (s *Server) SandboxGetFromName(_ context.Context, req *pb.SandboxGetFromNameRequest) (*pb.SandboxGetFromNameResponse, error) {
	return s.fromName(req, true)
}

// SandboxTagsSet implements the service.
func (s *Server) SandboxTagsSet(_ context.Context, req *pb.SandboxTagsSetRequest) (*emptypb.Empty, error) {
	return s.setTags(req, true)
}

// SandboxTagsGet implements the service.
func (s *Server) SandboxTagsGet(_ context.Context, req *pb.SandboxTagsGetRequest) (*pb.SandboxTagsGetResponse, error) {
	return s.getTags(req, true)
}

// SandboxList implements the service: it lists the sandboxes of the older
// interface alone.
func (s *Server) SandboxList(_ context.Context, req *pb.SandboxListRequest) (*pb.SandboxListResponse, error) {
	return s.list(req, func(sb *sandbox) bool { return sb.v1 })
}

// SandboxGetTunnels implements the service.
func (s *Server) SandboxGetTunnels(_ context.Context, req *pb.SandboxGetTunnelsRequest) (*pb.SandboxGetTunnelsResponse, error) {
	return s.getTunnels(req, true)
}

// SandboxCreateConnectToken implements the service.
func (s *Server) SandboxCreateConnectToken(_ context.Context, req *pb.SandboxCreateConnectTokenRequest) (*pb.SandboxCreateConnectTokenResponse, error) {
	return s.connectToken(req, true)
}

// SandboxGetExitSnapshot implements the service.
func (s *Server) SandboxGetExitSnapshot(ctx context.Context, req *pb.SandboxGetExitSnapshotRequest) (*pb.SandboxGetExitSnapshotResponse, error) {
	return s.getExitSnapshot(ctx, req, true)
}

// SandboxSnapshot implements the service. There are no memory snapshots.
func (s *Server) SandboxSnapshot(context.Context, *pb.SandboxSnapshotRequest) (*pb.SandboxSnapshotResponse, error) {
	return nil, noMemory()
}

// SandboxSnapshotWait implements the service. There are no memory snapshots.
func (s *Server) SandboxSnapshotWait(_ context.Context, req *pb.SandboxSnapshotWaitRequest) (*pb.SandboxSnapshotWaitResponse, error) {
	return nil, status.Errorf(codes.NotFound, "Snapshot '%s' not found: the emulator takes no snapshots of memory", req.GetSnapshotId())
}

// SandboxRestore implements the service. There are no memory snapshots.
func (s *Server) SandboxRestore(_ context.Context, req *pb.SandboxRestoreRequest) (*pb.SandboxRestoreResponse, error) {
	return nil, status.Errorf(codes.NotFound, "Snapshot '%s' not found: the emulator takes no snapshots of memory", req.GetSnapshotId())
}

// SandboxStdinWrite implements the service. Clients count their writes from 1;
// one that was taken already is not taken again.
func (s *Server) SandboxStdinWrite(ctx context.Context, req *pb.SandboxStdinWriteRequest) (*pb.SandboxStdinWriteResponse, error) {
	sb, err := s.find(req.GetSandboxId(), true)
	if err != nil {
		return nil, err
	}
	c := sb.task.main
	if c.entry == nil || c.hasEnded() {
		return nil, finished(sb.id)
	}
	defer sb.task.busy()()
	sb.stdin.Lock()
	defer sb.stdin.Unlock()
	if req.GetIndex() <= sb.stdinIndex {
		return &pb.SandboxStdinWriteResponse{}, nil
	}
	if req.GetIndex() != sb.stdinIndex+1 {
		return nil, invalid("write %d came, and %d is missing", req.GetIndex(), sb.stdinIndex+1)
	}
	err = c.entry.Stdin.Write(ctx, sb.stdinOffset, req.GetInput(), req.GetEof())
	if errors.Is(err, process.ErrStdinClosed) {
		return nil, status.Errorf(codes.FailedPrecondition, "stdin of Sandbox '%s' is closed", sb.id)
	}
	if err != nil {
		return nil, err
	}
	sb.stdinIndex, sb.stdinOffset = req.GetIndex(), sb.stdinOffset+uint64(len(req.GetInput()))
	return &pb.SandboxStdinWriteResponse{}, nil
}

// logChunk is how much one message of SandboxGetLogs carries.
const logChunk = 256 << 10

// SandboxGetLogs implements the service: the output of the sandbox's command
// from an entry on, as it comes. The number of an entry is the offset after it.
func (s *Server) SandboxGetLogs(req *pb.SandboxGetLogsRequest, stream grpc.ServerStreamingServer[pb.TaskLogsBatch]) error {
	sb, err := s.find(req.GetSandboxId(), true)
	if err != nil {
		return err
	}
	number, _, _ := strings.Cut(req.GetLastEntryId(), "-")
	off, err := strconv.ParseInt("0"+number, 10, 64)
	if err != nil {
		return invalid("no such log entry: %q", req.GetLastEntryId())
	}
	ctx, cancel := context.WithTimeout(stream.Context(), max(pollTime(req.GetTimeout()), time.Second))
	defer cancel()
	c := sb.task.main
	if c.entry == nil {
		return sendNone(ctx, c, stream)
	}
	out := &c.entry.Stdout
	if req.GetFileDescriptor() == pb.FileDescriptor_FILE_DESCRIPTOR_STDERR {
		out = &c.entry.Stderr
	}
	buf := make([]byte, logChunk)
	for {
		n, err := readText(ctx, out, buf, off)
		if n > 0 {
			off += int64(n)
			if err := stream.Send(logsBatch(sb, req.GetFileDescriptor(), off, string(buf[:n]), false)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return stream.Send(logsBatch(sb, req.GetFileDescriptor(), off, "", true))
		case stream.Context().Err() == nil && ctx.Err() != nil:
			return nil // the client asks again, from where this ended
		case err != nil:
			return err
		}
	}
}

// sendNone is the output of a sandbox without a command.
func sendNone(ctx context.Context, c *container, stream grpc.ServerStreamingServer[pb.TaskLogsBatch]) error {
	select {
	case <-c.ended:
		return stream.Send(pb.TaskLogsBatch_builder{EntryId: "0-0", Eof: true}.Build())
	case <-ctx.Done():
		return stream.Context().Err()
	}
}

func logsBatch(sb *sandbox, fd pb.FileDescriptor, off int64, text string, eof bool) *pb.TaskLogsBatch {
	batch := pb.TaskLogsBatch_builder{TaskId: sb.task.id, SandboxId: sb.id, EntryId: strconv.FormatInt(off, 10) + "-0", Eof: eof}
	if text != "" {
		batch.Items = []*pb.TaskLogs{pb.TaskLogs_builder{
			Data: strings.ToValidUTF8(text, "\uFFFD"), FileDescriptor: fd, Timestamp: seconds(time.Now()),
		}.Build()}
	}
	return batch.Build()
}

// readText reads like out.ReadAt, but no part of a character whose rest may come.
func readText(ctx context.Context, out *process.Output, buf []byte, off int64) (int, error) {
	n, err := out.ReadAt(ctx, buf, off)
	if n == 0 {
		return 0, err
	}
	for wholeRunes(buf[:n]) == 0 {
		m, err := out.ReadAt(ctx, buf[n:n+1], off+int64(n))
		switch {
		case errors.Is(err, io.EOF):
			return n, nil // it never comes
		case err != nil:
			return 0, err
		}
		n += m
	}
	return wholeRunes(buf[:n]), nil
}

// wholeRunes is how much of p can be sent without cutting its last character;
// all of it when that is not one that has merely not come yet.
func wholeRunes(p []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if tail := p[len(p)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return len(p) - i
			}
			break
		}
	}
	return len(p)
}
