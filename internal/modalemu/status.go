package modalemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// causes maps what drivers return to codes, first match first.
var causes = []struct {
	err  error
	code codes.Code
}{
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{driver.ErrNotFound, codes.NotFound},
	{driver.ErrEnded, codes.FailedPrecondition},
	{driver.ErrNameInUse, codes.AlreadyExists},
	{driver.ErrExhausted, codes.ResourceExhausted},
	{driver.ErrUnavailable, codes.Unavailable},
	{driver.ErrUnauthenticated, codes.PermissionDenied}, // a registry's refusal, not this server's
	{driver.ErrInvalid, codes.InvalidArgument},
	{driver.ErrNoIsolation, codes.FailedPrecondition},
	{errors.ErrUnsupported, codes.FailedPrecondition},
	{fs.ErrNotExist, codes.NotFound},
	{fs.ErrExist, codes.AlreadyExists},
	{fs.ErrPermission, codes.PermissionDenied},
}

// toStatus gives err as a status: what is one already as it is, what a driver
// says by the table above, and anything else, which nobody meant for a client,
// as Internal without its text. nil stays nil.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown && st.Code() != codes.OK {
		return st.Err()
	}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return status.Error(c.code, err.Error())
		}
	}
	return status.Error(codes.Internal, "internal error; the emulator's log says more")
}

// guard makes every answer a deliberate one: the outermost interceptor, so that
// what any other does wrong is mapped too.
type guard struct{ log *slog.Logger }

func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, g.mapped(ctx, info.FullMethod, panicked(r))
		}
	}()
	resp, err = next(ctx, req)
	if err != nil {
		return nil, g.mapped(ctx, info.FullMethod, err)
	}
	return resp, nil
}

func (g guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = g.mapped(ss.Context(), info.FullMethod, panicked(r))
		}
	}()
	return g.mapped(ss.Context(), info.FullMethod, next(srv, ss))
}

func (g guard) mapped(ctx context.Context, method string, err error) error {
	out := toStatus(err)
	if status.Code(out) == codes.Internal {
		g.log.ErrorContext(ctx, "call failed", "method", method, "error", err)
	}
	return out
}

// panicError is what a call's panic becomes.
type panicError struct {
	reason any
	stack  []byte
}

// panicked is called while the stack is still that of the panic.
func panicked(reason any) error { return &panicError{reason: reason, stack: debug.Stack()} }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.reason, e.stack) }
