package modalemu

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// answersKept bounds the answers that are remembered, and answerLife how long.
	answersKept = 4096
	answerLife  = 15 * time.Minute
)

// changing are the calls of the control plane that must not act twice when a
// client that has lost the answer tries again. Its other calls come to the same
// when repeated.
var changing = map[string]bool{
	"AppCreate": true, "AppGetOrCreate": true,
	"EnvironmentCreate": true, "EnvironmentDelete": true,
	"ImageGetOrCreate": true, "ImageDelete": true,
	"QueueDelete": true, "QueueGetOrCreate": true, "QueuePut": true,
	"SandboxContainerCreateV2": true, "SandboxCreate": true, "SandboxCreateV2": true,
	"SandboxCreateConnectToken": true, "SandboxCreateConnectTokenV2": true,
	"SandboxRestore": true, "SandboxRestoreV2": true, "SandboxSetName": true,
	"SandboxSnapshotFs": true,
	"SecretGetOrCreate": true, "SecretDelete": true,
	"VolumeGetOrCreate": true, "VolumeDelete": true,
}

// answers remembers what calls were answered, by method and the key that the
// client sends with every attempt at one call.
type answers struct {
	end     context.Context // ends what runs on without its client
	running sync.WaitGroup

	mu    sync.Mutex
	byKey map[string]*answer
}

// answer is one call's; resp and err are set once done is closed.
type answer struct {
	done chan struct{}
	at   time.Time
	resp any
	err  error
}

func newAnswers(end context.Context) *answers {
	return &answers{end: end, byKey: make(map[string]*answer)}
}

// unary lets a call act once. The first attempt runs on when its client has
// given up, as a second one may be on its way; that one gets the same answer. A
// failure is not remembered once it has been answered.
func (a *answers) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	name, ok := strings.CutPrefix(info.FullMethod, controlPlane)
	key := header(ctx, "x-idempotency-key")
	if !ok || key == "" || !changing[name] {
		return next(ctx, req)
	}
	key = name + " " + key
	a.mu.Lock()
	got := a.byKey[key]
	if got == nil {
		got = &answer{done: make(chan struct{}), at: time.Now()}
		a.makeRoom()
		a.byKey[key] = got
		a.running.Go(func() { a.run(context.WithoutCancel(ctx), key, got, req, next) })
	}
	a.mu.Unlock()
	select {
	case <-got.done:
		return got.resp, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *answers) run(ctx context.Context, key string, got *answer, req any, next grpc.UnaryHandler) {
	defer close(got.done)
	defer func() {
		if r := recover(); r != nil {
			got.err = panicked(r)
		}
		if got.err != nil {
			a.mu.Lock()
			delete(a.byKey, key)
			a.mu.Unlock()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.end, cancel)()
	got.resp, got.err = next(ctx, req)
}

// makeRoom forgets answers that are old, and when that does not do the oldest
// one; a.mu is held.
func (a *answers) makeRoom() {
	if len(a.byKey) < answersKept {
		return
	}
	oldest, limit := "", time.Now().Add(-answerLife)
	for key, got := range a.byKey {
		select {
		case <-got.done:
		default:
			continue // under way
		}
		if got.at.Before(limit) {
			delete(a.byKey, key)
		} else if oldest == "" || got.at.Before(a.byKey[oldest].at) {
			oldest = key
		}
	}
	if len(a.byKey) >= answersKept {
		delete(a.byKey, oldest)
	}
}
