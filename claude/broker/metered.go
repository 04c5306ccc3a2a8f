package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// meterAnswer counts an answer to a request for a message as it passes.
func meterAnswer(resp *http.Response, x *exchange) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // what is none is no stream
	stream := kind == "text/event-stream"
	x.answered(resp, stream)
	switch {
	case !x.costs || resp.Body == nil:
	case resp.StatusCode != http.StatusOK:
		resp.Body = &wholeBody{ReadCloser: resp.Body, x: x, left: resp.ContentLength, outcome: OutcomeFailed}
	case stream:
		resp.Header.Del("Content-Length") // it may end earlier, with an error
		resp.ContentLength = -1
		resp.Body = &streamBody{body: resp.Body, x: x}
	default:
		resp.Body = &wholeBody{ReadCloser: resp.Body, x: x, left: resp.ContentLength, outcome: OutcomeCompleted}
	}
}

// wholeBody is the body of an answer that is not streamed. The exchange is
// finished before the last byte goes on.
type wholeBody struct {
	io.ReadCloser
	x       *exchange
	left    int64 // of its length; negative where that is not known
	scan    memberScanner
	outcome Outcome
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.outcome == OutcomeCompleted {
		b.scan.write(p[:n])
	}
	if b.left > 0 {
		b.left -= int64(n)
	}
	if errors.Is(err, io.EOF) || b.left == 0 {
		if b.outcome == OutcomeCompleted {
			_ = b.x.book(b.scan.statement()) // it is paid for: what passes a budget is delivered
		}
		b.x.finish(b.outcome)
	}
	return n, err
}

// streamBody is the body of a streamed answer. What an event states is booked
// before the event goes on, and where that passes a budget, the event is the last
// one but for an error.
type streamBody struct {
	body  io.ReadCloser
	x     *exchange
	scan  eventScanner
	tail  []byte // to be handed out before the end
	ended bool   // here, not at the upstream
}

func (b *streamBody) Read(p []byte) (int, error) {
	if b.ended {
		n := copy(p, b.tail)
		if b.tail = b.tail[n:]; n == 0 && len(p) > 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	n, err := b.body.Read(p)
	for read := 0; read < n; {
		more, event := b.scan.next(p[read:n])
		read += more
		if !event {
			break
		}
		if bad := b.x.book(b.scan.statement()); bad != nil && !b.scan.over && !b.scan.err {
			b.stop(bad)
			return read, nil
		}
		if b.scan.over {
			b.x.finish(OutcomeCompleted)
		}
	}
	if errors.Is(err, io.EOF) || b.scan.err {
		b.x.finish(OutcomeFailed)
	}
	return n, err
}

// stop ends the stream with an error event in place of what was to come.
func (b *streamBody) stop(bad *refusal) {
	b.ended = true
	data, err := json.Marshal(errorBody(bad.errType, bad.problem))
	if err != nil {
		panic(err) // maps of strings
	}
	b.tail = fmt.Appendf(nil, "event: error\ndata: %s\n\n", data)
	_ = b.body.Close() // the upstream need not say more
	b.x.finish(OutcomeBudget)
}

func (b *streamBody) Close() error { return b.body.Close() }
