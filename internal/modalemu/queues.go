package modalemu

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// partitionLimit is how many values a partition of a queue holds, as at Modal.
	partitionLimit = 5000
	// partitionLife is how long a partition is kept after the last put, unless that says.
	partitionLife = 24 * time.Hour
)

// queues are the queues of a server. They live in memory alone.
type queues struct {
	mu   sync.Mutex
	byID map[string]*queue
}

type queue struct {
	id, name, environment string
	heartbeat             time.Time

	partitions map[string]*partition
	changed    chan struct{} // closed with the next put
}

type partition struct {
	items   []queueItem
	next    int64 // number of the next item
	expires time.Time
}

type queueItem struct {
	number int64
	value  []byte
}

func newQueues() *queues { return &queues{byID: make(map[string]*queue)} }

// with runs f with a queue, while nobody else changes it.
func (q *queues) with(id string, f func(*queue)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	found := q.byID[id]
	if found == nil {
		return status.Errorf(codes.NotFound, "Queue '%s' not found", id)
	}
	f(found)
	return nil
}

// part gives a partition, an empty one when there is none.
func (q *queue) part(key []byte) *partition {
	p := q.partitions[string(key)]
	if p == nil || time.Now().After(p.expires) {
		p = &partition{expires: time.Now().Add(partitionLife)}
		q.partitions[string(key)] = p
	}
	return p
}

// trim removes the queues without a name whose heartbeats have stopped.
func (q *queues) trim(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, found := range q.byID {
		if found.name == "" && now.Sub(found.heartbeat) > ephemeralLife {
			delete(q.byID, id)
		}
	}
}

// QueueGetOrCreate implements the service.
func (s *Server) QueueGetOrCreate(_ context.Context, req *pb.QueueGetOrCreateRequest) (*pb.QueueGetOrCreateResponse, error) {
	name, kind := req.GetDeploymentName(), req.GetObjectCreationType()
	environment := environmentName(req.GetEnvironmentName())
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	if kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_EPHEMERAL {
		name = ""
	} else {
		for _, q := range s.queues.byID {
			if q.name == name && name != "" && q.environment == environment {
				return q.handle(), nil
			}
		}
		if kind == pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED {
			return nil, status.Errorf(codes.NotFound, "Queue '%s' not found in environment '%s'", name, environment)
		}
		if err := checkName("Queue", name); err != nil {
			return nil, err
		}
	}
	q := &queue{
		id: newID("qu"), name: name, environment: environment, heartbeat: time.Now(),
		partitions: make(map[string]*partition), changed: make(chan struct{}),
	}
	s.queues.byID[q.id] = q
	return q.handle(), nil
}

func (q *queue) handle() *pb.QueueGetOrCreateResponse {
	return pb.QueueGetOrCreateResponse_builder{QueueId: q.id, Metadata: pb.QueueMetadata_builder{Name: q.name}.Build()}.Build()
}

// QueueDelete implements the service.
func (s *Server) QueueDelete(_ context.Context, req *pb.QueueDeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.queues.with(req.GetQueueId(), func(q *queue) {
		delete(s.queues.byID, q.id)
		close(q.changed)
		q.changed = make(chan struct{})
	})
}

// QueueHeartbeat implements the service.
func (s *Server) QueueHeartbeat(_ context.Context, req *pb.QueueHeartbeatRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.queues.with(req.GetQueueId(), func(q *queue) { q.heartbeat = time.Now() })
}

// QueuePut implements the service: all values, or none when there is no room.
func (s *Server) QueuePut(_ context.Context, req *pb.QueuePutRequest) (*emptypb.Empty, error) {
	fits := true
	err := s.queues.with(req.GetQueueId(), func(q *queue) {
		p := q.part(req.GetPartitionKey())
		if fits = len(p.items)+len(req.GetValues()) <= partitionLimit; !fits {
			return
		}
		for _, v := range req.GetValues() {
			p.next++
			p.items = append(p.items, queueItem{number: p.next, value: v})
		}
		if ttl := req.GetPartitionTtlSeconds(); ttl > 0 {
			p.expires = time.Now().Add(time.Duration(ttl) * time.Second)
		}
		close(q.changed)
		q.changed = make(chan struct{})
	})
	if err == nil && !fits {
		err = status.Errorf(codes.ResourceExhausted, "Queue '%s' is full: a partition holds %d values", req.GetQueueId(), partitionLimit)
	}
	return &emptypb.Empty{}, err
}

// await calls try with a queue until it reports success, or the wait is over.
func (q *queues) await(ctx context.Context, id string, seconds float32, try func(*queue) bool) error {
	t := time.NewTimer(pollTime(seconds))
	defer t.Stop()
	for {
		var changed <-chan struct{}
		done := false
		err := q.with(id, func(found *queue) { done, changed = try(found), found.changed })
		if err != nil || done {
			return err
		}
		select {
		case <-changed:
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// QueueGet implements the service: it takes up to so many values, and waits for
// the first.
func (s *Server) QueueGet(ctx context.Context, req *pb.QueueGetRequest) (*pb.QueueGetResponse, error) {
	var values [][]byte
	err := s.queues.await(ctx, req.GetQueueId(), req.GetTimeout(), func(q *queue) bool {
		if ctx.Err() != nil {
			return false // nobody would get them
		}
		p := q.part(req.GetPartitionKey())
		n := min(len(p.items), max(int(req.GetNValues()), 1))
		for _, item := range p.items[:n] {
			values = append(values, item.value)
		}
		p.items = p.items[n:]
		return n > 0
	})
	if err != nil {
		return nil, err
	}
	return pb.QueueGetResponse_builder{Values: values}.Build(), nil
}

// QueueNextItems implements the service: the values after an entry, which stay.
func (s *Server) QueueNextItems(ctx context.Context, req *pb.QueueNextItemsRequest) (*pb.QueueNextItemsResponse, error) {
	number, _, _ := strings.Cut(req.GetLastEntryId(), "-")
	last, err := strconv.ParseInt("0"+number, 10, 64)
	if err != nil {
		return nil, invalid("no such entry: %q", req.GetLastEntryId())
	}
	var items []*pb.QueueItem
	err = s.queues.await(ctx, req.GetQueueId(), req.GetItemPollTimeout(), func(q *queue) bool {
		for _, item := range q.part(req.GetPartitionKey()).items {
			if item.number > last {
				items = append(items, pb.QueueItem_builder{Value: item.value, EntryId: strconv.FormatInt(item.number, 10) + "-0"}.Build())
			}
		}
		return len(items) > 0
	})
	if err != nil {
		return nil, err
	}
	return pb.QueueNextItemsResponse_builder{Items: items}.Build(), nil
}

// QueueLen implements the service.
func (s *Server) QueueLen(_ context.Context, req *pb.QueueLenRequest) (*pb.QueueLenResponse, error) {
	if req.GetTotal() && len(req.GetPartitionKey()) > 0 {
		return nil, invalid("partition must be empty when requesting total length")
	}
	n := 0
	err := s.queues.with(req.GetQueueId(), func(q *queue) {
		if !req.GetTotal() {
			n = len(q.part(req.GetPartitionKey()).items)
			return
		}
		for key := range q.partitions {
			n += len(q.part([]byte(key)).items)
		}
	})
	return pb.QueueLenResponse_builder{Len: int32(n)}.Build(), err
}

// QueueClear implements the service.
func (s *Server) QueueClear(_ context.Context, req *pb.QueueClearRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.queues.with(req.GetQueueId(), func(q *queue) {
		if req.GetAllPartitions() {
			clear(q.partitions)
			return
		}
		delete(q.partitions, string(req.GetPartitionKey()))
	})
}
