package modalemu

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	controlPlane  = "/modal.client.ModalClient/"
	commandRouter = "/modal.task_command_router.TaskCommandRouter/"
	authTokenGet  = controlPlane + "AuthTokenGet"
)

// auth refuses calls of the control plane without credentials. Any credentials
// do, as there are no accounts here; a token must be one that this server has
// issued. Calls of the command router are checked by the router, which knows
// their task.
type auth struct{ tokens *tokens }

func (a auth) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if strings.HasPrefix(info.FullMethod, controlPlane) {
		if err := a.check(ctx, info.FullMethod); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

func (a auth) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, controlPlane) {
		if err := checkCredentials(ss.Context()); err != nil {
			return err
		}
	}
	return next(srv, ss)
}

// check wants credentials, and a token where the client sends one: with every
// call but the one that gets it, and streams.
func (a auth) check(ctx context.Context, method string) error {
	if err := checkCredentials(ctx); err != nil || method == authTokenGet {
		return err
	}
	_, err := a.tokens.check(forControlPlane, header(ctx, "x-modal-auth-token"))
	return err
}

func checkCredentials(ctx context.Context) error {
	if header(ctx, "x-modal-token-id") != "" && header(ctx, "x-modal-token-secret") != "" {
		return nil
	}
	if header(ctx, "x-modal-refresh-token") != "" && header(ctx, "x-modal-oauth-client-id") != "" {
		return nil
	}
	return status.Error(codes.Unauthenticated, "missing credentials: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; any value will do here")
}

// header is the first value of a call's metadata, or "".
func header(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}
