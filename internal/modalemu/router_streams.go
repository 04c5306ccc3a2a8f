package modalemu

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

// TaskExecWait implements the service: it waits for as long as the client does,
// which asks anew after a minute.
func (r *router) TaskExecWait(ctx context.Context, req *pb.TaskExecWaitRequest) (*pb.TaskExecWaitResponse, error) {
	p, err := r.exec(ctx, req.GetTaskId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	e, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	code, signal := exitStatus(e)
	return pb.TaskExecWaitResponse_builder{Code: code, Signal: signal}.Build(), nil
}

// TaskExecPoll implements the service: the answer is empty while the command runs.
func (r *router) TaskExecPoll(ctx context.Context, req *pb.TaskExecPollRequest) (*pb.TaskExecPollResponse, error) {
	p, err := r.exec(ctx, req.GetTaskId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Done():
	default:
		return &pb.TaskExecPollResponse{}, nil
	}
	e, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	code, signal := exitStatus(e)
	return pb.TaskExecPollResponse_builder{Code: code, Signal: signal}.Build(), nil
}

// exitStatus is an exit as the protocol has it: one of the two.
func exitStatus(e process.Exit) (code, signal *int32) {
	if e.Signal != 0 {
		s := int32(e.Signal)
		return nil, &s
	}
	c := int32(e.Code)
	return &c, nil
}

// messageSize is how much output one message carries at the most. With what is
// around it a message just fits into the buffers that gRPC keeps for messages,
// which it clears as a whole before each use.
const messageSize = 1<<20 - 64

var messages = sync.Pool{New: func() any { return new([messageSize]byte) }}

// send sends what an output has from offset off on, to its end.
func send(ctx context.Context, o *process.Output, off uint64, message func(off int64, data []byte) error) error {
	if off > math.MaxInt64 {
		return invalid("offset %d is out of range", off)
	}
	for at := int64(off); ; {
		n, err := sendOnce(ctx, o, at, message)
		at += int64(n)
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrClosed):
			return status.Error(codes.NotFound, "the output is not kept any more")
		case errors.Is(err, process.ErrFull):
			return status.Error(codes.ResourceExhausted, err.Error())
		case err != nil:
			return err
		}
	}
}

// sendOnce holds a buffer only while there is something to put in it. A message
// is encoded before Send returns, so that the buffer can be used again.
func sendOnce(ctx context.Context, o *process.Output, at int64, message func(off int64, data []byte) error) (int, error) {
	if err := o.Await(ctx, at); err != nil {
		return 0, err
	}
	buf := messages.Get().(*[messageSize]byte)
	defer messages.Put(buf)
	n, err := o.ReadAt(ctx, buf[:], at)
	if err != nil {
		return 0, err
	}
	return n, message(at, buf[:n])
}

// TaskExecStdioRead implements the service.
func (r *router) TaskExecStdioRead(req *pb.TaskExecStdioReadRequest, stream grpc.ServerStreamingServer[pb.TaskExecStdioReadResponse]) error {
	p, err := r.exec(stream.Context(), req.GetTaskId(), req.GetExecId())
	if err != nil {
		return err
	}
	var o *process.Output
	switch req.GetFileDescriptor() {
	case pb.TaskExecStdioFileDescriptor_TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT:
		o = &p.Stdout
	case pb.TaskExecStdioFileDescriptor_TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR:
		o = &p.Stderr
	default:
		return invalid("file descriptor %v cannot be read", req.GetFileDescriptor())
	}
	var resp pb.TaskExecStdioReadResponse
	err = send(stream.Context(), o, req.GetOffset(), func(_ int64, data []byte) error {
		resp.SetData(data)
		return stream.Send(&resp)
	})
	if err == nil {
		r.server.delivered.add(o, time.Now())
	}
	return err
}

// stdinError maps an error of writing to a command. The client takes a failed
// precondition for a command that has ended early.
func stdinError(err error) error {
	switch {
	case errors.Is(err, process.ErrGap):
		return status.Error(codes.OutOfRange, err.Error())
	case errors.Is(err, process.ErrStdinClosed):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, process.ErrEvicted):
		return status.Error(codes.Aborted, err.Error())
	}
	return err
}

// TaskExecStdinWrite implements the service.
func (r *router) TaskExecStdinWrite(ctx context.Context, req *pb.TaskExecStdinWriteRequest) (*pb.TaskExecStdinWriteResponse, error) {
	p, err := r.exec(ctx, req.GetTaskId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	if err := p.Stdin.Write(ctx, req.GetOffset(), req.GetData(), req.GetEof()); err != nil {
		return nil, stdinError(err)
	}
	return &pb.TaskExecStdinWriteResponse{}, nil
}

// TaskExecStdinStatus implements the service.
func (r *router) TaskExecStdinStatus(ctx context.Context, req *pb.TaskExecStdinStatusRequest) (*pb.TaskExecStdinStatusResponse, error) {
	p, err := r.exec(ctx, req.GetTaskId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	n, closed := p.Stdin.Status()
	return pb.TaskExecStdinStatusResponse_builder{NumBytesWritten: n, Closed: closed}.Build(), nil
}

type stdinStream = grpc.ClientStreamingServer[pb.TaskExecStdinWriteStreamRequest, pb.TaskExecStdinWriteStreamResponse]

// TaskExecStdinWriteStream implements the service. A stream that breaks before
// its end leaves stdin open, for another to go on.
func (r *router) TaskExecStdinWriteStream(stream stdinStream) error {
	first, err := stream.Recv()
	if err != nil {
		return brokenOff(err)
	}
	start := first.GetStart()
	if start == nil {
		return invalid("the first message of a stdin stream must be its start")
	}
	p, err := r.exec(stream.Context(), start.GetTaskId(), start.GetExecId())
	if err != nil {
		return err
	}
	w := p.Stdin.Stream(start.GetOffset())
	done := make(chan error, 1)
	go func() { done <- receive(stream, w) }()
	select {
	case err = <-done:
	case <-w.Evicted():
		// Returning ends the stream, and with it what receive waits for.
		err = process.ErrEvicted
	}
	if err != nil {
		return stdinError(err)
	}
	return stream.SendAndClose(&pb.TaskExecStdinWriteStreamResponse{})
}

// receive writes what comes, until the end of stdin does.
func receive(stream stdinStream, w *process.Stream) error {
	for {
		msg, err := stream.Recv()
		if err != nil {
			return brokenOff(err)
		}
		switch {
		case msg.HasData():
			err = w.Write(stream.Context(), msg.GetData())
		case msg.HasEnd():
			return w.End(stream.Context())
		default:
			err = invalid("a stdin stream has data and an end after its start")
		}
		if err != nil {
			return err
		}
	}
}

// brokenOff is for a stream that its client has ended without a word about stdin.
func brokenOff(err error) error {
	if err == io.EOF {
		return invalid("the stdin stream was closed without its end")
	}
	return err
}
