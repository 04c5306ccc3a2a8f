package modalemu

import (
	"context"
	"regexp"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// mainEnvironment is what an empty environment name means.
const mainEnvironment = "main"

// builderVersion is the image builder's that environments are set to.
const builderVersion = "2025.06"

// AuthTokenGet implements the service.
func (s *Server) AuthTokenGet(ctx context.Context, _ *pb.AuthTokenGetRequest) (*pb.AuthTokenGetResponse, error) {
	who := header(ctx, "x-modal-token-id")
	if who == "" {
		who = header(ctx, "x-modal-oauth-client-id")
	}
	token := s.tokens.issue(forControlPlane, who, s.tokenLife(authTokenLife))
	return pb.AuthTokenGetResponse_builder{Token: token}.Build(), nil
}

func (s *Server) tokenLife(usual time.Duration) time.Duration {
	if s.opts.TokenLife > 0 {
		return s.opts.TokenLife
	}
	return usual
}

// ClientHello implements the service.
func (s *Server) ClientHello(context.Context, *emptypb.Empty) (*pb.ClientHelloResponse, error) {
	return pb.ClientHelloResponse_builder{}.Build(), nil
}

// environmentName is the name that an empty one stands for.
func environmentName(name string) string {
	if name == "" {
		return mainEnvironment
	}
	return name
}

// environment gives the environment of that name, making it when it is not
// there: a client's configuration may name one, and nothing here depends on it.
func (r *records) environment(name string) *environmentRecord {
	name = environmentName(name)
	env := r.Environments[name]
	if env == nil {
		env = &environmentRecord{ID: newID("en"), Name: name, Created: time.Now()}
		r.Environments[name] = env
	}
	return env
}

var objectName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// checkName refuses a name that Modal would.
func checkName(kind, name string) error {
	if !objectName.MatchString(name) {
		return status.Errorf(codes.InvalidArgument, "Invalid %s name: '%s'. Names may contain only alphanumeric characters, dashes, periods, and underscores, and must be shorter than 64 characters.", kind, name)
	}
	return nil
}

// EnvironmentGetOrCreate implements the service.
func (s *Server) EnvironmentGetOrCreate(_ context.Context, req *pb.EnvironmentGetOrCreateRequest) (*pb.EnvironmentGetOrCreateResponse, error) {
	var env *environmentRecord
	err := s.store.change(func(r *records) error {
		name := environmentName(req.GetDeploymentName())
		if env = r.Environments[name]; env != nil {
			if req.GetObjectCreationType() == pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS {
				return status.Errorf(codes.AlreadyExists, "Environment '%s' already exists", name)
			}
			return nil
		}
		if req.GetObjectCreationType() == pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED {
			return status.Errorf(codes.NotFound, "Environment '%s' not found", name)
		}
		if err := checkName("Environment", name); err != nil {
			return err
		}
		env = r.environment(name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return pb.EnvironmentGetOrCreateResponse_builder{
		EnvironmentId: env.ID,
		Metadata: pb.EnvironmentMetadata_builder{
			Name:     env.Name,
			Settings: pb.EnvironmentSettings_builder{ImageBuilderVersion: builderVersion}.Build(),
		}.Build(),
	}.Build(), nil
}

// EnvironmentCreate implements the service.
func (s *Server) EnvironmentCreate(_ context.Context, req *pb.EnvironmentCreateRequest) (*emptypb.Empty, error) {
	if err := checkName("Environment", req.GetName()); err != nil {
		return nil, err
	}
	if role := req.GetDefaultMemberRoleStr(); !slices.Contains([]string{"", "viewer", "contributor", "manager", "none"}, role) {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid environment role: '%s'", role)
	}
	return &emptypb.Empty{}, s.store.change(func(r *records) error {
		if r.Environments[req.GetName()] != nil {
			return status.Errorf(codes.AlreadyExists, "Environment '%s' already exists", req.GetName())
		}
		env := r.environment(req.GetName())
		env.Managed, env.Role = req.GetIsManaged(), req.GetDefaultMemberRoleStr()
		return nil
	})
}

// EnvironmentList implements the service.
func (s *Server) EnvironmentList(context.Context, *emptypb.Empty) (*pb.EnvironmentListResponse, error) {
	var items []*pb.EnvironmentListItem
	s.store.read(func(r *records) {
		for _, name := range names(r.Environments) {
			env := r.Environments[name]
			items = append(items, pb.EnvironmentListItem_builder{
				Name: env.Name, EnvironmentId: env.ID, CreatedAt: seconds(env.Created),
				Default: env.Name == mainEnvironment, IsManaged: env.Managed,
			}.Build())
		}
	})
	return pb.EnvironmentListResponse_builder{Items: items}.Build(), nil
}

// seconds is a time as the protocol has it.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// ProxyGet implements the service.
func (s *Server) ProxyGet(_ context.Context, req *pb.ProxyGetRequest) (*pb.ProxyGetResponse, error) {
	var p *proxyRecord
	s.store.read(func(r *records) { p = r.Proxies[req.GetName()] })
	if p == nil {
		return nil, status.Errorf(codes.NotFound, "Proxy '%s' not found", req.GetName())
	}
	return pb.ProxyGetResponse_builder{Proxy: pb.Proxy_builder{
		Name: p.Name, ProxyId: p.ID, CreatedAt: seconds(p.Created),
		EnvironmentName: environmentName(req.GetEnvironmentName()),
	}.Build()}.Build(), nil
}
