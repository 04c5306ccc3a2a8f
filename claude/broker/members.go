package broker

import (
	"bytes"
	"encoding/json"
)

// memberScanner reads a JSON object as it passes and keeps two of its members,
// model and usage, in memory that does not grow with it. Of what is not JSON it
// keeps something or nothing. The zero value is ready.
type memberScanner struct {
	model, usage []byte // as they were sent
	length       int64

	depth    int
	text     bool // in a string
	escaped  bool // after its backslash
	key      bool // the string is a key of the object
	value    bool // after the colon of a member
	kept     []byte
	long     bool // there was more than is kept
	keeping  bool
	wanted   *[]byte // where the value of the member goes
	wantNext *[]byte // as the key said
}

func (s *memberScanner) write(p []byte) {
	s.length += int64(len(p))
	for len(p) > 0 {
		n := 1
		if s.text && !s.escaped {
			if n = bytes.IndexAny(p, `"\`); n < 0 {
				n = len(p)
			}
		}
		if n == 0 || !s.text || s.escaped {
			n = 1
			s.take(p[0])
		} else {
			s.keep(p[:n])
		}
		p = p[n:]
	}
}

func (s *memberScanner) keep(part []byte) {
	if !s.keeping {
		return
	}
	if room := maxKept - len(s.kept); len(part) > room {
		part, s.long = part[:room], true
	}
	s.kept = append(s.kept, part...)
}

// take takes one byte: any that is not within a string, and those within that mean
// something.
func (s *memberScanner) take(c byte) {
	if s.text {
		s.keep([]byte{c})
		s.takeText(c)
		return
	}
	if s.depth == 1 && (c == ',' || c == '}') {
		s.endMember()
	}
	switch c {
	case '"':
		s.text, s.key = true, s.depth == 1 && !s.value
		if s.key {
			s.begin()
		}
	case '{', '[':
		s.depth++
	case '}', ']':
		s.depth--
	case ':':
		if s.depth == 1 && !s.value {
			s.value, s.wanted = true, s.wantNext
			if s.keeping = s.wanted != nil; s.keeping {
				s.begin()
			}
			return
		}
	}
	s.keep([]byte{c})
}

func (s *memberScanner) begin() { s.keeping, s.kept, s.long = true, s.kept[:0], false }

func (s *memberScanner) takeText(c byte) {
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped = true
	case c == '"':
		s.text = false
		if s.key {
			s.endKey()
		}
	}
}

func (s *memberScanner) endKey() {
	s.key, s.keeping, s.wantNext = false, false, nil
	var key string
	if s.long || json.Unmarshal(s.kept, &key) != nil {
		return
	}
	switch key {
	case "model":
		s.wantNext = &s.model
	case "usage":
		s.wantNext = &s.usage
	}
}

func (s *memberScanner) endMember() {
	if s.wanted != nil {
		*s.wanted = nil
		if !s.long {
			*s.wanted = bytes.Clone(bytes.TrimSpace(s.kept))
		}
	}
	s.value, s.keeping, s.wanted, s.wantNext = false, false, nil, nil
}

// statement is what the object states; where that is nothing, an estimate.
func (s *memberScanner) statement() statement {
	var now statement
	_ = json.Unmarshal(s.model, &now.model) // no model: the one that was asked for
	var usage apiUsage
	if json.Unmarshal(s.usage, &usage) == nil && usage.Output != nil {
		now.add(&usage)
		now.final = true
		return now
	}
	now.usage.Output = s.length / bytesPerToken
	return now
}
