//go:build linux

package modalemu_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// bare is what benchmarks compare the emulator with: a gRPC server that takes
// and sends the same messages, in pieces of the same sizes over connections with
// the same settings, and does the least that answers them. Commands are plain
// os/exec, files are plain files in one directory, written in place; nothing is
// isolated, kept, checked or repeated.
type bare struct {
	pb.UnimplementedTaskCommandRouterServer

	dir   string
	mu    sync.Mutex
	execs map[string]*bareExec
}

// bareControl makes its sandboxes, which are all one.
type bareControl struct {
	pb.UnimplementedModalClientServer
	address string
}

// bareExec is a command, or an operation on a file.
type bareExec struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *os.File
	file   *os.File // what is written or read
}

// startBare starts one and gives a sandbox of it.
func startBare(tb testing.TB) *modal.Sandbox {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b := &bare{dir: tb.TempDir(), execs: make(map[string]*bareExec)}
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(100<<20), grpc.MaxSendMsgSize(100<<20),
		grpc.InitialWindowSize(64<<20), grpc.InitialConnWindowSize(64<<20),
		grpc.ReadBufferSize(256<<10), grpc.WriteBufferSize(256<<10),
	)
	pb.RegisterModalClientServer(srv, &bareControl{address: l.Addr().String()})
	pb.RegisterTaskCommandRouterServer(srv, b)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	tb.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return sandboxAt(tb, "http://"+l.Addr().String())
}

// sandboxAt makes a sandbox by Modal's client at a server.
func sandboxAt(tb testing.TB, url string) *modal.Sandbox {
	tb.Helper()
	params := &modal.ClientParams{TokenID: "ak-x", TokenSecret: "as-x", Environment: "main"}
	if err := pointAt(&params.Config, url); err != nil {
		tb.Fatal(err)
	}
	client, err := modal.NewClientWithOptions(params)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	app, err := client.Apps.FromName(tb.Context(), "bench", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		tb.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(tb.Context(), app, client.Images.FromRegistry("debian:12", nil), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = sb.Detach() })
	return sb
}

// pointAt fills a configuration whose type has no name outside of its package.
func pointAt[T any](cfg **T, url string) error {
	name := os.Getenv("MODAL_PROFILE")
	if name == "" {
		name = "bench"
	}
	raw, err := json.Marshal(map[string]any{name: map[string]any{"ServerURL": url, "Active": true}})
	if err != nil {
		return err
	}
	*cfg = new(T)
	return json.Unmarshal(raw, *cfg)
}

// bareToken is a token that the client takes for good for an hour.
func bareToken() string {
	payload := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())
	return "x." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".x"
}

func (*bareControl) AuthTokenGet(context.Context, *pb.AuthTokenGetRequest) (*pb.AuthTokenGetResponse, error) {
	return pb.AuthTokenGetResponse_builder{Token: bareToken()}.Build(), nil
}

func (*bareControl) AppGetOrCreate(context.Context, *pb.AppGetOrCreateRequest) (*pb.AppGetOrCreateResponse, error) {
	return pb.AppGetOrCreateResponse_builder{AppId: "ap-1"}.Build(), nil
}

func (*bareControl) EnvironmentGetOrCreate(context.Context, *pb.EnvironmentGetOrCreateRequest) (*pb.EnvironmentGetOrCreateResponse, error) {
	return pb.EnvironmentGetOrCreateResponse_builder{
		Metadata: pb.EnvironmentMetadata_builder{
			Name: "main", Settings: pb.EnvironmentSettings_builder{ImageBuilderVersion: "2025.06"}.Build(),
		}.Build(),
	}.Build(), nil
}

func (*bareControl) ImageGetOrCreate(context.Context, *pb.ImageGetOrCreateRequest) (*pb.ImageGetOrCreateResponse, error) {
	return pb.ImageGetOrCreateResponse_builder{
		ImageId: "im-1",
		Result:  pb.GenericResult_builder{Status: pb.GenericResult_GENERIC_STATUS_SUCCESS}.Build(),
	}.Build(), nil
}

func (*bareControl) SandboxCreateV2(context.Context, *pb.SandboxCreateV2Request) (*pb.SandboxCreateV2Response, error) {
	return pb.SandboxCreateV2Response_builder{SandboxId: "sb-00000000000000000000000000", TaskId: "ta-1"}.Build(), nil
}

func (*bareControl) SandboxGetTaskIdV2(context.Context, *pb.SandboxGetTaskIdRequest) (*pb.SandboxGetTaskIdResponse, error) {
	task := "ta-1"
	return pb.SandboxGetTaskIdResponse_builder{TaskId: &task}.Build(), nil
}

func (b *bareControl) SandboxGetCommandRouterAccess(context.Context, *pb.SandboxGetCommandRouterAccessRequest) (*pb.SandboxGetCommandRouterAccessResponse, error) {
	return pb.SandboxGetCommandRouterAccessResponse_builder{Jwt: bareToken(), Url: "https://" + b.address}.Build(), nil
}

func (b *bare) exec(id string) *bareExec {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.execs[id]
}

func (b *bare) TaskExecStart(_ context.Context, req *pb.TaskExecStartRequest) (*pb.TaskExecStartResponse, error) {
	e, err := b.start(req.GetCommandArgs())
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.execs[req.GetExecId()] = e
	b.mu.Unlock()
	return &pb.TaskExecStartResponse{}, nil
}

func (b *bare) start(args []string) (*bareExec, error) {
	if len(args) == 2 {
		var op struct{ WriteFile, ReadFile *struct{ Path string } }
		if json.Unmarshal([]byte(args[1]), &op) == nil {
			switch {
			case op.WriteFile != nil:
				f, err := os.Create(b.path(op.WriteFile.Path))
				return &bareExec{file: f}, err
			case op.ReadFile != nil:
				f, err := os.Open(b.path(op.ReadFile.Path))
				return &bareExec{file: f}, err
			}
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	_ = unix.SetNonblock(int(r.Fd()), true)
	e := &bareExec{cmd: exec.Command(args[0], args[1:]...), stdout: r}
	e.cmd.Stdout = w
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return e, e.cmd.Start()
}

func (b *bare) path(name string) string { return filepath.Join(b.dir, filepath.Base(name)) }

func (b *bare) TaskExecWait(_ context.Context, req *pb.TaskExecWaitRequest) (*pb.TaskExecWaitResponse, error) {
	e := b.exec(req.GetExecId())
	var code int32
	if e.cmd != nil {
		_ = e.cmd.Wait()
		code = int32(e.cmd.ProcessState.ExitCode())
	}
	return pb.TaskExecWaitResponse_builder{Code: &code}.Build(), nil
}

// bareMessage is what the emulator puts in one message.
const bareMessage = 1<<20 - 64

func (b *bare) TaskExecStdioRead(req *pb.TaskExecStdioReadRequest, stream grpc.ServerStreamingServer[pb.TaskExecStdioReadResponse]) error {
	e := b.exec(req.GetExecId())
	if req.GetFileDescriptor() != pb.TaskExecStdioFileDescriptor_TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT {
		return nil
	}
	var resp pb.TaskExecStdioReadResponse
	from := e.stdout
	if e.cmd == nil {
		from = e.file
	}
	defer from.Close()
	buf := make([]byte, bareMessage)
	for {
		n, err := from.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		resp.SetData(buf[:n])
		if err := stream.Send(&resp); err != nil {
			return err
		}
	}
}

func (b *bare) TaskExecStdinWrite(_ context.Context, req *pb.TaskExecStdinWriteRequest) (*pb.TaskExecStdinWriteResponse, error) {
	e := b.exec(req.GetExecId())
	if e.cmd == nil {
		return &pb.TaskExecStdinWriteResponse{}, nil
	}
	_, err := e.stdin.Write(req.GetData())
	if err == nil && req.GetEof() {
		err = e.stdin.Close()
	}
	return &pb.TaskExecStdinWriteResponse{}, err
}

func (b *bare) TaskExecStdinWriteStream(stream grpc.ClientStreamingServer[pb.TaskExecStdinWriteStreamRequest, pb.TaskExecStdinWriteStreamResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	e := b.exec(first.GetStart().GetExecId())
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		if msg.HasEnd() {
			if err := e.file.Close(); err != nil {
				return err
			}
			return stream.SendAndClose(&pb.TaskExecStdinWriteStreamResponse{})
		}
		if _, err := e.file.Write(msg.GetData()); err != nil {
			return err
		}
	}
}
