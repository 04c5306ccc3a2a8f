package modalemu

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// entryLog knows when a command wrote what: the pieces of its output, in the
// order they came.
type entryLog struct {
	mu      sync.Mutex
	pieces  []piece
	changed chan struct{} // closed with the next piece
}

// piece is a stretch of output.
type piece struct {
	stderr bool
	off    int64
	n      int
	at     time.Time
}

func newEntryLog() *entryLog { return &entryLog{changed: make(chan struct{})} }

// written is process.Options.Written.
func (l *entryLog) written(stderr bool, off int64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pieces = append(l.pieces, piece{stderr: stderr, off: off, n: n, at: time.Now()})
	close(l.changed)
	l.changed = make(chan struct{})
}

// since gives the pieces from number i on, and a channel that is closed when
// there are more.
func (l *entryLog) since(i int) ([]piece, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i > len(l.pieces) {
		i = len(l.pieces)
	}
	return l.pieces[i:len(l.pieces):len(l.pieces)], l.changed
}

// logLine is a line of a command's output, and when it came.
type logLine struct {
	stderr bool
	at     time.Time
	text   string
}

// lines are those that a container's command has printed. A line's time is that
// of its last piece: it is whole then.
func (c *container) lines(ctx context.Context) ([]logLine, error) {
	if c.entry == nil {
		return nil, nil
	}
	pieces, _ := c.log.since(0)
	var lines []logLine
	var open [2]logLine // begun and not ended, of stdout and stderr
	buf := make([]byte, 0, 64<<10)
	for _, p := range pieces {
		out, i := &c.entry.Stdout, 0
		if p.stderr {
			out, i = &c.entry.Stderr, 1
		}
		buf = slices.Grow(buf[:0], p.n)[:p.n]
		for done := 0; done < p.n; {
			n, err := out.ReadAt(ctx, buf[done:], p.off+int64(done))
			if err != nil {
				return nil, err
			}
			done += n
		}
		for part := range bytes.Lines(buf) {
			open[i].stderr, open[i].at = p.stderr, p.at
			open[i].text += string(part)
			if part[len(part)-1] == '\n' {
				lines = append(lines, open[i])
				open[i] = logLine{}
			}
		}
	}
	for _, l := range open {
		if l.text != "" {
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b logLine) int { return a.at.Compare(b.at) })
	return lines, nil
}

// logQuery is which lines a client asks for.
type logQuery struct {
	appID, taskID, sandboxID string
	since, until             *timestamppb.Timestamp
	source                   pb.FileDescriptor
	text                     string
}

// logLines finds the lines, with the sandbox they are from.
func (s *Server) logLines(ctx context.Context, q logQuery) (*sandbox, []logLine, error) {
	if _, err := s.app(q.appID); err != nil {
		return nil, nil, err
	}
	id := q.sandboxID
	if id == "" && q.taskID != "" {
		t, err := s.task(q.taskID)
		if err != nil {
			return nil, nil, err
		}
		id = t.sandboxID
	}
	if id == "" {
		return nil, nil, refused("the logs of a whole app")
	}
	sb, err := s.boxes.get(id)
	if err != nil {
		return nil, nil, err
	}
	lines, err := sb.task.main.lines(ctx)
	if err != nil {
		return nil, nil, err
	}
	return sb, slices.DeleteFunc(lines, func(l logLine) bool { return !q.wants(l) }), nil
}

func (q *logQuery) wants(l logLine) bool {
	switch q.source {
	case pb.FileDescriptor_FILE_DESCRIPTOR_STDOUT:
		if l.stderr {
			return false
		}
	case pb.FileDescriptor_FILE_DESCRIPTOR_STDERR:
		if !l.stderr {
			return false
		}
	case pb.FileDescriptor_FILE_DESCRIPTOR_INFO:
		return false
	}
	if q.since != nil && l.at.Before(q.since.AsTime()) || q.until != nil && !l.at.Before(q.until.AsTime()) {
		return false
	}
	return strings.Contains(l.text, q.text)
}

// AppFetchLogs implements the service, for one sandbox: the newest lines that match.
func (s *Server) AppFetchLogs(ctx context.Context, req *pb.AppFetchLogsRequest) (*pb.AppFetchLogsResponse, error) {
	sb, lines, err := s.logLines(ctx, logQuery{
		appID: req.GetAppId(), taskID: req.GetTaskId(), sandboxID: req.GetSandboxId(),
		since: req.GetSince(), until: req.GetUntil(), source: req.GetSource(), text: req.GetSearchText(),
	})
	if err != nil {
		return nil, err
	}
	if limit := int(req.GetLimit()); limit > 0 && len(lines) > limit {
		lines = lines[len(lines)-limit:]
	}
	if len(lines) == 0 {
		return &pb.AppFetchLogsResponse{}, nil
	}
	items := make([]*pb.TaskLogs, 0, len(lines))
	for _, l := range lines {
		fd := pb.FileDescriptor_FILE_DESCRIPTOR_STDOUT
		if l.stderr {
			fd = pb.FileDescriptor_FILE_DESCRIPTOR_STDERR
		}
		items = append(items, pb.TaskLogs_builder{
			Data: strings.ToValidUTF8(l.text, "\uFFFD"), FileDescriptor: fd,
			Timestamp: seconds(l.at), TimestampNs: uint64(l.at.UnixNano()),
		}.Build())
	}
	return pb.AppFetchLogsResponse_builder{Batches: []*pb.TaskLogsBatch{
		pb.TaskLogsBatch_builder{TaskId: sb.task.id, SandboxId: sb.id, ImageId: sb.imageID, Items: items}.Build(),
	}}.Build(), nil
}

// AppCountLogs implements the service, for one sandbox.
func (s *Server) AppCountLogs(ctx context.Context, req *pb.AppCountLogsRequest) (*pb.AppCountLogsResponse, error) {
	_, lines, err := s.logLines(ctx, logQuery{
		appID: req.GetAppId(), taskID: req.GetTaskId(), sandboxID: req.GetSandboxId(),
		since: req.GetSince(), until: req.GetUntil(), source: req.GetSource(), text: req.GetSearchText(),
	})
	if err != nil {
		return nil, err
	}
	size := int64(max(req.GetBucketSecs(), 1))
	var buckets []*pb.AppCountLogsResponse_LogBucket
	for _, l := range lines {
		start := l.at.Unix() - l.at.Unix()%size
		if n := len(buckets); n == 0 || buckets[n-1].GetBucketStartAt().GetSeconds() != start {
			buckets = append(buckets, pb.AppCountLogsResponse_LogBucket_builder{BucketStartAt: &timestamppb.Timestamp{Seconds: start}}.Build())
		}
		b := buckets[len(buckets)-1]
		if l.stderr {
			b.SetStderrLogs(b.GetStderrLogs() + 1)
		} else {
			b.SetStdoutLogs(b.GetStdoutLogs() + 1)
		}
	}
	return pb.AppCountLogsResponse_builder{AppId: req.GetAppId(), Buckets: buckets}.Build(), nil
}
