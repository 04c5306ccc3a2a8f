package modalemu

import (
	"context"
	"maps"
	"regexp"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

var variableName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// checkVariables refuses names that are none of environment variables.
func checkVariables(values map[string]string) error {
	for _, key := range names(values) {
		if !variableName.MatchString(key) {
			return status.Errorf(codes.InvalidArgument, "Secret key name %q is invalid for environment variables. Only letters, numbers, and underscores are allowed, and the name cannot start with a number.", key)
		}
		if strings.ContainsRune(values[key], 0) {
			return status.Errorf(codes.InvalidArgument, "The value of %s has a NUL byte, which an environment variable cannot have", key)
		}
	}
	return nil
}

// SecretGetOrCreate implements the service.
func (s *Server) SecretGetOrCreate(_ context.Context, req *pb.SecretGetOrCreateRequest) (*pb.SecretGetOrCreateResponse, error) {
	if err := checkVariables(req.GetEnvDict()); err != nil {
		return nil, err
	}
	var secret *secretRecord
	err := s.store.change(func(r *records) (err error) {
		secret, err = r.getOrCreateSecret(req)
		return err
	})
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, key := range req.GetRequiredKeys() {
		if _, ok := secret.Values[key]; !ok {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return nil, status.Errorf(codes.InvalidArgument, "Secret is missing key(s): %s", strings.Join(missing, ", "))
	}
	return pb.SecretGetOrCreateResponse_builder{
		SecretId: secret.ID,
		Metadata: pb.SecretMetadata_builder{Name: secret.Name, Keys: names(secret.Values), EnvironmentName: environmentName(req.GetEnvironmentName())}.Build(),
	}.Build(), nil
}

func (r *records) getOrCreateSecret(req *pb.SecretGetOrCreateRequest) (*secretRecord, error) {
	name, kind := req.GetDeploymentName(), req.GetObjectCreationType()
	if kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_EPHEMERAL || kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP {
		return r.addSecret("", req.GetEnvironmentName(), req.GetEnvDict()), nil
	}
	secret := r.secret(name, req.GetEnvironmentName())
	switch {
	case secret == nil && kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED:
		return nil, status.Errorf(codes.NotFound, "Secret '%s' not found in environment '%s'", name, environmentName(req.GetEnvironmentName()))
	case secret == nil:
		if err := checkName("Secret", name); err != nil {
			return nil, err
		}
		return r.addSecret(name, req.GetEnvironmentName(), req.GetEnvDict()), nil
	case kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
		return nil, status.Errorf(codes.AlreadyExists, "Secret '%s' already exists", name)
	case kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
		changed := *secret
		changed.Values = maps.Clone(req.GetEnvDict())
		r.Secrets[secret.ID] = &changed
		return &changed, nil
	}
	return secret, nil
}

// secret finds a secret by its name, or nil. A seeded one is in every environment.
func (r *records) secret(name, environment string) *secretRecord {
	var found *secretRecord
	for _, secret := range r.Secrets {
		if secret.Name != name || name == "" {
			continue
		}
		if secret.Environment == environmentName(environment) && !secret.Seeded {
			return secret
		}
		if secret.Seeded {
			found = secret
		}
	}
	return found
}

func (r *records) addSecret(name, environment string, values map[string]string) *secretRecord {
	secret := &secretRecord{
		ID: newID("st"), Name: name, Environment: r.environment(environment).Name,
		Created: time.Now(), Values: maps.Clone(values),
	}
	r.Secrets[secret.ID] = secret
	return secret
}

// SecretDelete implements the service.
func (s *Server) SecretDelete(_ context.Context, req *pb.SecretDeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.store.change(func(r *records) error {
		if r.Secrets[req.GetSecretId()] == nil {
			return status.Errorf(codes.NotFound, "Secret '%s' not found", req.GetSecretId())
		}
		delete(r.Secrets, req.GetSecretId())
		return nil
	})
}

// secretValues gives what a secret holds.
func (s *Server) secretValues(id string) (map[string]string, error) {
	var secret *secretRecord
	s.store.read(func(r *records) { secret = r.Secrets[id] })
	if secret == nil {
		return nil, status.Errorf(codes.NotFound, "Secret '%s' not found", id)
	}
	return secret.Values, nil
}

// variables are what sources give, the later ones over the earlier. ids are
// secrets that stand before them all, unless a source names one.
func (s *Server) variables(ids []string, sources []*pb.SecretSource) (map[string]string, error) {
	all := make(map[string]string)
	if len(sources) == 0 {
		for _, id := range ids {
			values, err := s.secretValues(id)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, values)
		}
	}
	for _, source := range sources {
		values := source.GetEnv().GetContents()
		if source.HasSecretId() {
			var err error
			if values, err = s.secretValues(source.GetSecretId()); err != nil {
				return nil, err
			}
		}
		if err := checkVariables(values); err != nil {
			return nil, err
		}
		maps.Copy(all, values)
	}
	return all, nil
}

// environ is KEY=VALUE of values, sorted.
func environ(values map[string]string) []string {
	env := make([]string, 0, len(values))
	for _, key := range names(values) {
		env = append(env, key+"="+values[key])
	}
	return env
}
