package modalemu

import (
	"bytes"
	"context"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

const (
	// buildWait bounds a build, and buildPatience what a call waits for one
	// before it leaves its client to follow the log.
	buildWait     = time.Hour
	buildPatience = time.Second
	// failedKept is how long the log and the result of a failed build are kept.
	failedKept = 10 * time.Minute
)

// builds are the images that are being built, and those that could not be.
type builds struct {
	mu       sync.Mutex
	byID     map[string]*build
	byRecipe map[string]*build // of those under way
}

func newBuilds() *builds {
	return &builds{byID: make(map[string]*build), byRecipe: make(map[string]*build)}
}

// build is an image that is being built. As a writer it is the build's log.
type build struct {
	imageID string
	done    chan struct{} // closed once result is set
	result  *pb.GenericResult
	ended   time.Time

	mu      sync.Mutex
	lines   []*pb.TaskLogs
	partial []byte
	changed chan struct{} // closed with the next line
}

func newBuild(id string) *build {
	return &build{imageID: id, done: make(chan struct{}), changed: make(chan struct{})}
}

// Write takes what the build prints.
func (b *build) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partial = append(b.partial, p...)
	cut := bytes.LastIndexByte(b.partial, '\n') + 1
	if cut == 0 {
		return len(p), nil
	}
	for line := range bytes.Lines(b.partial[:cut]) {
		b.add(line)
	}
	b.partial = append(b.partial[:0], b.partial[cut:]...)
	return len(p), nil
}

// add takes a line; b.mu is held.
func (b *build) add(line []byte) {
	b.lines = append(b.lines, pb.TaskLogs_builder{
		Data: string(bytes.ToValidUTF8(line, []byte("\uFFFD"))), Timestamp: seconds(time.Now()),
		FileDescriptor: pb.FileDescriptor_FILE_DESCRIPTOR_STDOUT,
	}.Build())
	close(b.changed)
	b.changed = make(chan struct{})
}

// since gives the lines from number i on, and a channel that is closed when
// there are more.
func (b *build) since(i int) ([]*pb.TaskLogs, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i = min(i, len(b.lines))
	return b.lines[i:len(b.lines):len(b.lines)], b.changed
}

// finish sets the result.
func (b *build) finish(result *pb.GenericResult) {
	b.mu.Lock()
	if len(b.partial) > 0 {
		b.add(b.partial)
		b.partial = nil
	}
	b.mu.Unlock()
	b.result, b.ended = result, time.Now()
	close(b.done)
}

// await waits until the build is done, for a while.
func (b *build) await(ctx context.Context, wait time.Duration) (done bool) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-b.done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (b *builds) get(id string) *build {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byID[id]
}

// begin gives the build of a recipe that is under way, or a new one of the image id.
func (b *builds) begin(recipe, id string) (_ *build, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if under := b.byRecipe[recipe]; under != nil {
		return under, false
	}
	made := newBuild(id)
	b.byRecipe[recipe], b.byID[id] = made, made
	return made, true
}

// end makes the result of a build known. One that succeeded is an image now.
func (b *builds) end(recipe string, made *build, result *pb.GenericResult) {
	made.finish(result)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byRecipe, recipe)
	if result.GetStatus() == pb.GenericResult_GENERIC_STATUS_SUCCESS {
		delete(b.byID, made.imageID)
	}
}

// trim forgets the builds that failed a while ago.
func (b *builds) trim(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, made := range b.byID {
		select {
		case <-made.done:
			if now.Sub(made.ended) > failedKept {
				delete(b.byID, id)
			}
		default:
		}
	}
}
