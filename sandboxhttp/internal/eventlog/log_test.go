package eventlog_test

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// event is one event as a reader of server-sent events sees it.
type event struct {
	id   uint64
	name string
	data string
}

// parse reads frames as the HTML standard says (Server-sent events, 9.2.6).
func parse(t testing.TB, stream []byte) (events []event) {
	t.Helper()
	var e event
	var data []string
	lines := bufio.NewScanner(bytes.NewReader(stream))
	lines.Buffer(nil, 64<<20)
	lines.Split(splitLines)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			if data != nil {
				e.data = strings.Join(data, "\n")
				events = append(events, e)
			}
			e, data = event{}, nil
		case "id":
			id, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				t.Fatalf("id %q: %v", value, err)
			}
			e.id = id
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		default:
			t.Fatalf("a line that is no field: %q", lines.Text())
		}
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return events
}

// splitLines splits at CR, LF and CR LF.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0 && atEOF && len(data) > 0:
		return len(data), data, nil
	case i < 0:
		return 0, nil, nil
	case data[i] == '\r' && i+1 == len(data) && !atEOF:
		return 0, nil, nil
	case data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n':
		return i + 2, data[:i], nil
	}
	return i + 1, data[:i], nil
}

// rest reads all there is after an event without waiting.
func rest(t testing.TB, l *eventlog.Log, after uint64) (events []event, gaps [][2]uint64, done bool) {
	t.Helper()
	for {
		b := l.After(after)
		if b.From != 0 {
			gaps = append(gaps, [2]uint64{b.From, b.To})
		}
		events = append(events, parse(t, b.Frames)...)
		after = b.Last
		if b.Done || b.Wake != nil {
			return events, gaps, b.Done
		}
	}
}

func TestEventsComeOnceAndInOrderFromAnyPoint(t *testing.T) {
	const n = 3000
	l := eventlog.New(1 << 30)
	for i := 1; i < n; i++ {
		if id := l.Append("", fmt.Appendf(nil, "line %d %s", i, strings.Repeat("x", i%700))); id != uint64(i) {
			t.Fatalf("event %d got number %d", i, id)
		}
	}
	if id := l.End("end", []byte("{}")); id != n {
		t.Fatalf("the end got number %d", id)
	}
	for _, after := range []uint64{0, 1, 17, n / 2, n - 2, n - 1, n, n + 5} {
		events, gaps, done := rest(t, l, after)
		if after > n && len(events) == 1 && events[0].name == "end" {
			continue // who has seen more elsewhere is told the end
		}
		if !done || gaps != nil || len(events) != max(0, n-int(after)) {
			t.Fatalf("after %d: %d events, gaps %v, done %v", after, len(events), gaps, done)
		}
		for i, e := range events {
			if e.id != after+uint64(i)+1 {
				t.Fatalf("after %d: event %d has id %d", after, i, e.id)
			}
		}
	}
	if l.Append("", []byte("late")) != 0 || l.End("end", nil) != 0 {
		t.Error("an ended log took an event")
	}
}

func TestMemoryIsBoundedAndWhatIsMissingIsSaid(t *testing.T) {
	const limit = 64 << 10
	l := eventlog.New(limit)
	for i := range 5000 {
		l.Append("", fmt.Appendf(nil, "%d %s", i+1, strings.Repeat("y", 100)))
		if size := l.Size(); size > limit {
			t.Fatalf("holds %d bytes, %d are allowed", size, limit)
		}
	}
	events, gaps, _ := rest(t, l, 10)
	if len(gaps) != 1 || gaps[0][0] != 11 || gaps[0][1]+1 != events[0].id {
		t.Fatalf("gaps %v, then event %d", gaps, events[0].id)
	}
	if held := len(events); held < 300 {
		t.Errorf("only %d events are held of %d bytes", held, limit)
	}
	if last := events[len(events)-1]; last.id != 5000 || !strings.HasPrefix(last.data, "5000 ") {
		t.Errorf("the newest is %d", last.id)
	}
}

func TestAnEventLargerThanTheLimitIsHeld(t *testing.T) {
	l := eventlog.New(1000)
	l.Append("", []byte("small"))
	l.Append("", bytes.Repeat([]byte("z"), 100_000))
	events, gaps, _ := rest(t, l, 0)
	if len(events) != 1 || len(events[0].data) != 100_000 || len(gaps) != 1 {
		t.Fatalf("%d events, gaps %v", len(events), gaps)
	}
}

func TestTrimKeepsTheLastEvent(t *testing.T) {
	l := eventlog.New(1 << 20)
	for range 100 {
		l.Append("", []byte("a line"))
	}
	l.Trim() // it has not ended: nothing happens
	if events, _, _ := rest(t, l, 0); len(events) != 100 {
		t.Fatalf("%d events after Trim of a log that goes on", len(events))
	}
	l.End("end", []byte(`{"end":"completed"}`))
	l.Trim()
	events, gaps, done := rest(t, l, 40)
	want := event{101, "end", `{"end":"completed"}`}
	if !done || len(events) != 1 || events[0] != want || len(gaps) != 1 || gaps[0] != [2]uint64{41, 100} {
		t.Errorf("events %v, gaps %v, done %v", events, gaps, done)
	}
	if l.Size() > 200 {
		t.Errorf("holds %d bytes", l.Size())
	}
}

func TestPast(t *testing.T) {
	l := eventlog.Past(12, "end", []byte("{}"), nil)
	events, gaps, done := rest(t, l, 0)
	if !done || len(events) != 1 || events[0].id != 12 || len(gaps) != 1 || gaps[0] != [2]uint64{1, 11} {
		t.Errorf("events %v, gaps %v, done %v", events, gaps, done)
	}
	if events, gaps, _ := rest(t, eventlog.Past(0, "end", nil, nil), 0); len(events) != 1 || events[0].id != 1 || gaps != nil {
		t.Errorf("of none: events %v, gaps %v", events, gaps)
	}
}

func TestPlainFramesHaveNoIDs(t *testing.T) {
	l := eventlog.NewPlain(1 << 20)
	l.Append("progress", []byte("1"))
	if got, want := string(l.After(0).Frames), "event: progress\ndata: 1\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Many append and follow at once; every follower sees every event.
func TestConcurrentFollowers(t *testing.T) {
	const n, followers = 2000, 20
	l := eventlog.New(1 << 30)
	var wg sync.WaitGroup
	for range followers {
		wg.Go(func() {
			var after uint64
			var frames []byte
			for {
				b := l.After(after)
				after = b.Last
				frames = append(frames, b.Frames...)
				if b.Done {
					break
				}
				if b.Wake != nil {
					<-b.Wake
				}
			}
			events := parse(t, frames)
			if len(events) != n+1 {
				t.Errorf("%d events", len(events))
			}
			for i, e := range events {
				if e.id != uint64(i+1) {
					t.Errorf("event %d has id %d", i, e.id)
					return
				}
			}
		})
	}
	for i := range n {
		l.Append("", strconv.AppendInt(nil, int64(i), 10))
	}
	l.End("end", nil)
	wg.Wait()
}

func FuzzFrame(f *testing.F) {
	for _, seed := range []string{"", "{}", "a\nb", "a\r\nb", "\r", "\n\n", "data: x\n\nid: 7", "\r\r\n", " x", ":", "\x00\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := eventlog.New(1 << 20)
		l.Append("", data)
		l.Append("end", []byte("{}"))
		want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
		events, _, _ := rest(t, l, 0)
		if len(events) != 2 || events[0].data != want || events[0].id != 1 || events[1] != (event{2, "end", "{}"}) {
			t.Errorf("%q came out as %+v", data, events)
		}
	})
}
