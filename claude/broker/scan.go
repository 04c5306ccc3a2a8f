package broker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// place is where in a request a value stands, as far as it matters.
type place uint8

const (
	content    place = iota // anywhere else: there may be images and documents in it
	request                 // the request itself
	tools                   // its tools, or one of them
	toolType                // the type of a tool
	source                  // where an image or a document comes from
	sourceType              // the type of that
	bulk                    // what it is, where it is not text: an image in base64
	model                   // of the request
	maxTokens               // of the request
	stream                  // of the request
	data                    // what nobody acts on: schemas, and what tools were called with
)

// clientTool matches the types of tools that run where the client does; see
// https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview. The
// API's own may begin alike: bash_code_execution_20250825.
var clientTool = regexp.MustCompile(`^(custom|(bash|text_editor|computer|memory)_[0-9]{8})$`)

var joints = strings.NewReplacer("_", "", "-", "")

// is reports whether a key may be read as a word by somebody: in another case,
// or with its words joined in another way.
func is(key, word string) bool {
	return strings.EqualFold(joints.Replace(key), word)
}

// at gives the place of a member of an object, or refuses it. Every member
// counts, whichever of several with one key the API would take.
func (p place) at(key string) (place, *refusal) {
	switch {
	case p == data:
		return data, nil
	case p == request && (is(key, "mcpservers") || is(key, "container")):
		return data, reachesOut(fmt.Sprintf("%.64q", key))
	case p == request && is(key, "tools"):
		return tools, nil
	case p == request && key == "model":
		return model, nil
	case p == request && key == "max_tokens":
		return maxTokens, nil
	case p == request && key == "stream":
		return stream, nil
	case p == tools && is(key, "type"):
		return toolType, nil
	case p == tools:
		return data, nil
	case p == source && is(key, "type"):
		return sourceType, nil
	case p == source && is(key, "url"):
		return data, reachesOut("a source with a URL")
	case p == source && key == "data":
		return bulk, nil
	case p != request && key == "input":
		return data, nil
	case is(key, "source"):
		return source, nil
	}
	return content, nil
}

// inner is the place of the elements of an array.
func (p place) inner() place {
	switch p {
	case toolType, sourceType, bulk, model, maxTokens, stream:
		return content
	}
	return p
}

// text checks a string.
func (p place) text(s string) *refusal {
	switch {
	case p == toolType && !clientTool.MatchString(s):
		return reachesOut(fmt.Sprintf("a tool of type %.64q", s))
	case p == sourceType && is(s, "url"):
		return reachesOut("a source with a URL")
	}
	return nil
}

// other checks a value that is no string.
func (p place) other(null bool) *refusal {
	if p == toolType && !null {
		return reachesOut("a tool with a type that is no string")
	}
	return nil
}

const (
	// maxNesting is how deeply a body may be nested.
	maxNesting = 1000
	// maxToken is how much of a key, a type or a number is looked at. Everything
	// that is looked for is far shorter, also with every letter escaped.
	maxToken = 512
)

// step is what the scanner waits for.
type step uint8

const (
	wantRequest step = iota
	wantValue
	wantValueOrEnd
	wantKey
	wantKeyOrEnd
	wantColon
	wantCommaOrEnd
	wantSpace // the request is over
	inString
	inEscape
	inHex
	inWord // a number, true, false or null
)

// level is an object or an array that is open.
type level struct {
	object bool
	place  place
}

// bodyScanner reads a body piece by piece, in memory that does not grow with it.
// It is stricter than some who read JSON, so that no two can read it differently:
// no byte order mark, no comments, nothing after the object. The zero value is
// ready.
type bodyScanner struct {
	allow bool // what makes the API reach out

	length, bulk int64 // bytes so far, and those of them in base64
	wants        asked // what the request says about itself

	step  step
	open  []level
	next  place  // of the value that comes
	key   bool   // the string is a key
	keep  bool   // the string matters
	hex   int    // digits that are still to come
	token []byte // the string or word so far, without quotes
	long  bool   // there was more of it than is kept
}

// write takes the next piece.
func (s *bodyScanner) write(piece []byte) *refusal {
	s.length += int64(len(piece))
	for len(piece) > 0 {
		if s.step == inString {
			n := 0
			for n < len(piece) && !endsPlain[piece[n]] {
				n++
			}
			s.add(piece[:n])
			if !s.key && s.next == bulk {
				s.bulk += int64(n)
			}
			if piece = piece[n:]; len(piece) == 0 {
				return nil
			}
		}
		if err := s.take(piece[0]); err != nil {
			return err
		}
		piece = piece[1:]
	}
	return nil
}

// end says that no more comes.
func (s *bodyScanner) end() *refusal {
	if s.step != wantSpace {
		return errCut
	}
	return nil
}

const (
	// imageBytesPerToken is how many bytes of an image or a document in base64 a token
	// is, about.
	imageBytesPerToken = 64
	maxAnswer          = 1_000_000 // tokens; no model writes more
)

// asked is what the request asks for, once it is over.
func (s *bodyScanner) asked() asked {
	a := s.wants
	a.tokens = (s.length-s.bulk)/bytesPerToken + s.bulk/imageBytesPerToken + 1
	return a
}

// pass drops an objection to what is allowed.
func (s *bodyScanner) pass(bad *refusal) *refusal {
	if bad != nil && s.allow && bad.status == http.StatusForbidden {
		return nil
	}
	return bad
}

// endsPlain are the bytes that mean something in a string.
var endsPlain = func() (ends [256]bool) {
	for c := range ' ' {
		ends[c] = true
	}
	ends['"'], ends['\\'] = true, true
	return ends
}()

func (s *bodyScanner) add(piece []byte) {
	if !s.keep {
		return
	}
	if room := maxToken - len(s.token); len(piece) > room {
		piece, s.long = piece[:room], true
	}
	s.token = append(s.token, piece...)
}

// take takes one byte.
func (s *bodyScanner) take(c byte) *refusal {
	switch s.step {
	case inString, inEscape, inHex:
		return s.takeText(c)
	case inWord:
		if !strings.ContainsRune(" \t\r\n,]}", rune(c)) {
			s.add([]byte{c})
			return nil
		}
		if err := s.endWord(); err != nil {
			return err
		}
	}
	if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
		return nil
	}
	return s.takeMark(c)
}

// takeMark takes a byte that is neither space nor part of a string or a word.
func (s *bodyScanner) takeMark(c byte) *refusal {
	switch {
	case c == '{' && s.step == wantRequest:
		return s.begin(level{object: true, place: request})
	case s.step == wantRequest:
	case s.step == wantColon && c == ':':
		s.step = wantValue
		return nil
	case s.step == wantCommaOrEnd && c == ',':
		s.step, s.next = wantValue, s.top().place.inner()
		if s.top().object {
			s.step = wantKey
		}
		return nil
	case (c == '}' || c == ']') && s.closes(c):
		s.open = s.open[:len(s.open)-1]
		s.ended()
		return nil
	case (s.step == wantKey || s.step == wantKeyOrEnd) && c == '"':
		s.beginText(true)
		return nil
	case s.step == wantValue || s.step == wantValueOrEnd:
		return s.beginValue(c)
	}
	return notJSON(fmt.Sprintf("%q where it cannot be", c))
}

func (s *bodyScanner) top() level { return s.open[len(s.open)-1] }

// closes reports whether a bracket may stand here.
func (s *bodyScanner) closes(c byte) bool {
	switch s.step {
	case wantCommaOrEnd:
		return s.top().object == (c == '}')
	case wantKeyOrEnd:
		return c == '}'
	case wantValueOrEnd:
		return c == ']'
	}
	return false
}

func (s *bodyScanner) beginValue(c byte) *refusal {
	switch c {
	case '"':
		s.beginText(false)
		return nil
	case '{', '[':
		if err := s.pass(s.next.other(false)); err != nil {
			return err
		}
		return s.begin(level{object: c == '{', place: s.next.inner()})
	}
	s.step, s.keep, s.long, s.token = inWord, true, false, append(s.token[:0], c)
	return nil
}

func (s *bodyScanner) begin(l level) *refusal {
	if len(s.open) == maxNesting {
		return notJSON("it is nested too deeply")
	}
	s.open = append(s.open, l)
	s.step, s.next = wantValueOrEnd, l.place
	if l.object {
		s.step = wantKeyOrEnd
	}
	return nil
}

func (s *bodyScanner) beginText(key bool) {
	s.step, s.key, s.long, s.token = inString, key, false, s.token[:0]
	s.keep = key || s.next == toolType || s.next == sourceType || s.next == model
}

func (s *bodyScanner) takeText(c byte) *refusal {
	switch {
	case s.step == inString && c == '"':
		return s.endText()
	case s.step == inString && c == '\\':
		s.step = inEscape
	case s.step == inString:
		return notJSON("a control character in a string")
	case s.step == inEscape && c == 'u':
		s.step, s.hex = inHex, 4
	case s.step == inEscape && strings.ContainsRune(`"\/bfnrt`, rune(c)):
		s.step = inString
	case s.step == inHex && strings.ContainsRune("0123456789abcdefABCDEF", rune(c)):
		if s.hex--; s.hex == 0 {
			s.step = inString
		}
	default:
		return notJSON("an escape that is none")
	}
	s.add([]byte{c})
	return nil
}

// endText looks at a string that is over.
func (s *bodyScanner) endText() *refusal {
	var text string
	if s.keep && !s.long {
		if !utf8.Valid(s.token) {
			return notJSON("text that is not UTF-8")
		}
		quoted := append(append([]byte{'"'}, s.token...), '"')
		if err := json.Unmarshal(quoted, &text); err != nil {
			return notJSON(err.Error())
		}
	}
	if s.key {
		next, err := s.top().place.at(text)
		s.next, s.step = next, wantColon
		return s.pass(err)
	}
	if s.next == model {
		s.wants.model = text
	}
	err := s.pass(s.next.text(text))
	s.ended()
	return err
}

// endWord looks at a number, true, false or null that is over.
func (s *bodyScanner) endWord() *refusal {
	if s.long || !json.Valid(s.token) {
		return notJSON("a word that is no value")
	}
	switch s.next {
	case stream:
		s.wants.stream = string(s.token) == "true"
	case maxTokens:
		n, err := strconv.ParseFloat(string(s.token), 64)
		if err == nil {
			s.wants.maxTokens = int64(min(max(n, 0), maxAnswer))
		}
	}
	err := s.pass(s.next.other(string(s.token) == "null"))
	s.ended()
	return err
}

// ended says that a value is over.
func (s *bodyScanner) ended() {
	if s.step = wantCommaOrEnd; len(s.open) == 0 {
		s.step = wantSpace
	}
}
