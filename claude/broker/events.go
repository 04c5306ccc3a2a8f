package broker

import (
	"bytes"
	"encoding/json"
)

const (
	// maxKept is how much of an event is looked at, in bytes; those that state
	// something have a few hundred.
	maxKept = 64 << 10
	// deltaFrame is what a delta is besides its text, in bytes.
	deltaFrame = len(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}`)
	// bytesPerToken is how many bytes of text a token is, about.
	bytesPerToken = 4
)

// eventScanner reads server-sent events as they pass, in whatever pieces they
// come, and keeps what they state. The zero value is ready.
type eventScanner struct {
	now  statement
	seen int64 // tokens of the answer so far, an estimate
	over bool  // the message is complete
	err  bool  // an error event came

	line    []byte // begun in an earlier piece, as much as is kept
	lineLen int    // all of it
	name    []byte
	data    []byte // of the event so far, as much as is kept
	dataLen int
}

// next reads up to the end of an event, and says how much that was and whether
// an event ended there.
func (s *eventScanner) next(p []byte) (n int, ended bool) {
	for n < len(p) {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			s.keep(p[n:])
			return len(p), false
		}
		line, length := p[n:n+i], i
		if s.lineLen > 0 {
			s.keep(line)
			line, length = s.line, s.lineLen
		}
		n += i + 1
		ended = s.take(bytes.TrimSuffix(line, []byte("\r")), length)
		s.line, s.lineLen = s.line[:0], 0
		if ended {
			return n, true
		}
	}
	return n, false
}

func (s *eventScanner) keep(part []byte) {
	s.lineLen += len(part)
	s.line = append(s.line, part[:min(len(part), maxKept-len(s.line))]...)
}

var (
	eventField = []byte("event:")
	dataField  = []byte("data:")
)

// take takes a line, of which length bytes were sent, and says whether it ends an
// event.
func (s *eventScanner) take(line []byte, length int) bool {
	switch {
	case len(line) == 0:
		s.event()
		s.name, s.data, s.dataLen = s.name[:0], s.data[:0], 0
		return true
	case bytes.HasPrefix(line, eventField):
		s.name = append(s.name[:0], bytes.TrimSpace(line[len(eventField):min(len(line), 128)])...)
	case bytes.HasPrefix(line, dataField):
		s.dataLen += length - len(dataField)
		if string(s.name) != "content_block_delta" {
			data := line[len(dataField):]
			s.data = append(s.data, data[:min(len(data), maxKept-len(s.data))]...)
		}
	}
	return false
}

// event looks at an event that is complete. Its data says what it is where its
// name does not.
func (s *eventScanner) event() {
	switch string(s.name) {
	case "content_block_delta":
		s.delta()
		return
	case "message_start", "message_delta", "message_stop", "error", "":
	default:
		return
	}
	var e struct {
		Type    string
		Message struct {
			Model string
			Usage apiUsage
		}
		Usage apiUsage
	}
	if json.Unmarshal(s.data, &e) != nil {
		return
	}
	switch e.Type {
	case "content_block_delta":
		s.delta()
	case "message_start":
		s.now.model = e.Message.Model
		s.now.add(&e.Message.Usage)
	case "message_delta":
		s.now.add(&e.Usage)
		s.now.final = s.now.final || e.Usage.Output != nil
	case "message_stop":
		s.over = true
	case "error":
		s.err = true
	}
}

func (s *eventScanner) delta() {
	s.seen += int64(max(0, s.dataLen-deltaFrame)/bytesPerToken + 1)
}

// statement is what the answer has used by now; where it has not said so yet, an
// estimate.
func (s *eventScanner) statement() statement {
	now := s.now
	if !now.final {
		now.usage.Output = max(now.usage.Output, s.seen)
	}
	return now
}
