package modalemu_test

import (
	"context"
	"strings"
	"testing"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// raw is a connection that tries nothing again, and the context for its calls.
func raw(t *testing.T, s *modaltest.Server) (*grpc.ClientConn, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.URL(), "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-modal-token-id", "ak", "x-modal-token-secret", "as")
	resp, err := pb.NewModalClientClient(conn).AuthTokenGet(ctx, &pb.AuthTokenGetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return conn, metadata.AppendToOutgoingContext(ctx, "x-modal-auth-token", resp.GetToken())
}

// fill sets what can be set in a message: garbage, two levels deep.
func fill(m protoreflect.Message, text string, number, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
		case f.IsList():
			if f.Kind() == protoreflect.MessageKind && depth > 0 {
				fill(m.Mutable(f).List().AppendMutable().Message(), text, number, depth-1)
			} else if v := garbage(f, text, number); v.IsValid() {
				m.Mutable(f).List().Append(v)
			}
		case f.Kind() == protoreflect.MessageKind:
			if depth > 0 {
				fill(m.Mutable(f).Message(), text, number, depth-1)
			}
		default:
			if v := garbage(f, text, number); v.IsValid() {
				m.Set(f, v)
			}
		}
	}
}

func garbage(f protoreflect.FieldDescriptor, text string, number int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number != 0)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(number))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(number))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(number) / 1e9)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(number) / 1e9)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(number & 3))
	}
	return protoreflect.Value{}
}

// deliberate are the codes that somebody chose: a bare error would be Unknown,
// and what nobody expected Internal.
func deliberate(err error) bool {
	code := status.Code(err)
	return code != codes.Unknown && code != codes.Internal && code != codes.DataLoss
}

func TestEveryMethodAnswersGarbageDeliberately(t *testing.T) {
	s := modaltest.New(t, nil)
	conn, ctx := raw(t, s)
	for _, name := range []protoreflect.FullName{"modal.client.ModalClient", "modal.task_command_router.TaskCommandRouter"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			full := "/" + string(name) + "/" + string(m.Name())
			for _, with := range []struct {
				text   string
				number int
			}{{"", 0}, {"x", 1}, {"../../\x00\"'%s", -1}, {"im-" + strings.Repeat("a", 70000), 1 << 30}} {
				req := dynamicpb.NewMessage(m.Input())
				if with.text != "" {
					fill(req, with.text, with.number, 2)
				}
				if err := call(ctx, conn, m, full, req); !deliberate(err) {
					t.Errorf("%s with %.20q: %v", full, with.text, err)
				}
			}
		}
	}
}

// call sends one message, and takes what comes until the end or an error.
func call(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, full string, req proto.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, full)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil {
		return stream.RecvMsg(&emptypb.Empty{})
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(m.Output()))
}
