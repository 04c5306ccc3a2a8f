package claude

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// maxDepth is how deeply values may be nested: what encoding/json allows.
const maxDepth = 10000

var (
	errNotObject = errors.New("it is not a JSON object")
	errNoType    = errors.New(`it has no "type"`)
	errTruncated = errors.New("it ends in the middle")
	errTooDeep   = errors.New("it is nested too deeply")
)

// scanner reads the envelopes of lines. It accepts exactly what encoding/json
// accepts, but decodes nothing beside the envelope, in one pass and in
// whatever order the keys come. Strings that repeat are kept once: the zero
// value is ready, and for one goroutine.
type scanner struct {
	data  []byte
	pos   int
	depth int

	words map[string]string // types and subtypes seen
	last  [2]string         // the last session id and parent tool use id
}

// maxWords bounds the memory for types and subtypes: the CLI has some 50.
const maxWords = 256

// scan reads the envelope of a line, without its newline. The raw is the line
// itself; with an error nothing else is set.
func (s *scanner) scan(line []byte) (envelope, error) {
	bad := envelope{raw: line}
	e := bad
	s.data, s.pos, s.depth = line, 0, 0
	defer func() { s.data = nil }()
	s.space()
	if s.pos == len(s.data) || s.data[s.pos] != '{' {
		if !json.Valid(line) {
			return bad, fmt.Errorf("%w: %w", errNotObject, syntaxError(line))
		}
		return bad, errNotObject
	}
	if err := s.object(func(key, value []byte) { s.member(&e, key, value) }); err != nil {
		return bad, err
	}
	s.space()
	if s.pos != len(s.data) {
		return bad, s.unexpected("after the object")
	}
	if e.typ == "" {
		return bad, errNoType
	}
	return e, nil
}

// syntaxError is encoding/json's error for data that is not valid.
func syntaxError(data []byte) error {
	var v json.RawMessage
	return json.Unmarshal(data, &v)
}

// object reads the object at pos, and shows its members to visit, if that is
// not nil.
func (s *scanner) object(visit func(key, value []byte)) error {
	if s.depth++; s.depth > maxDepth {
		return errTooDeep
	}
	s.pos++ // the brace
	s.space()
	if s.peek() == '}' {
		s.pos++
		s.depth--
		return nil
	}
	for {
		key, err := s.key()
		if err != nil {
			return err
		}
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if visit != nil {
			visit(key, s.data[start:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			s.pos++
			s.depth--
			return nil
		default:
			return s.unexpected("after a member of an object")
		}
	}
}

// member keeps what belongs to the envelope. The last of several members with
// one name counts, as with encoding/json.
func (s *scanner) member(e *envelope, key, value []byte) {
	switch string(key) { // no allocation
	case "type":
		e.typ = s.word(value)
	case "subtype":
		e.subtype = s.word(value)
	case "session_id":
		e.session = s.repeated(value, 0)
	case "parent_tool_use_id":
		e.parent = s.repeated(value, 1)
	case "uuid":
		e.uuid = raw(value)
	case "event":
		e.event = raw(value)
	}
}

// key reads a member's name and the colon, and leaves pos at the value.
func (s *scanner) key() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.unexpected("where a member's name belongs")
	}
	start := s.pos
	if err := s.str(); err != nil {
		return nil, err
	}
	key := s.data[start+1 : s.pos-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(text(s.data[start:s.pos]))
	}
	s.space()
	if s.peek() != ':' {
		return nil, s.unexpected("after a member's name")
	}
	s.pos++
	s.space()
	return key, nil
}

// value reads the value at pos.
func (s *scanner) value() error {
	switch c := s.peek(); c {
	case '"':
		return s.str()
	case '{':
		return s.object(nil)
	case '[':
		return s.array(nil)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		if c == '-' || isDigit(c) {
			return s.number()
		}
		return s.unexpected("where a value belongs")
	}
}

// array reads the array at pos, and shows its elements to visit, if that is not nil.
func (s *scanner) array(visit func(value []byte)) error {
	if s.depth++; s.depth > maxDepth {
		return errTooDeep
	}
	s.pos++ // the bracket
	s.space()
	if s.peek() == ']' {
		s.pos++
		s.depth--
		return nil
	}
	for {
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if visit != nil {
			visit(s.data[start:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case ']':
			s.pos++
			s.depth--
			return nil
		default:
			return s.unexpected("after an element of an array")
		}
	}
}

// plain tells the bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return t
}()

// str reads the string at pos.
func (s *scanner) str() error {
	data := s.data
	i := s.pos + 1
	for {
		i += plainLen(data[i:])
		if i == len(data) {
			return errTruncated
		}
		switch data[i] {
		case '"':
			s.pos = i + 1
			return nil
		case '\\':
			n := escapeLen(data[i:])
			if n == 0 {
				s.pos = i
				return s.unexpected("in an escape")
			}
			i += n
		default:
			s.pos = i
			return s.unexpected("in a string")
		}
	}
}

// plainLen is how many bytes stand for themselves at the start of a part of a
// string. It looks at eight at once where it can.
func plainLen(data []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for i+8 <= len(data) {
		x := binary.LittleEndian.Uint64(data[i:])
		quote, slash := x^('"'*ones), x^('\\'*ones)
		// A byte's high bit is set where x is below ' ', or quote or slash is 0.
		// Bytes above the first such one may be wrong, so only that is used.
		special := ((x-' '*ones) & ^x | (quote-ones) & ^quote | (slash-ones) & ^slash) & highs
		if special != 0 {
			return i + bits.TrailingZeros64(special)/8
		}
		i += 8
	}
	for i < len(data) && plain[data[i]] {
		i++
	}
	return i
}

// escapeLen is the length of the escape at the start of data, 0 for none.
func escapeLen(data []byte) int {
	if len(data) < 2 {
		return 0
	}
	switch data[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(data) >= 6 && isHex(data[2]) && isHex(data[3]) && isHex(data[4]) && isHex(data[5]) {
			return 6
		}
	}
	return 0
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

// digits reads at least one.
func (s *scanner) digits() error {
	if !isDigit(s.peek()) {
		return s.unexpected("in a number")
	}
	for isDigit(s.peek()) {
		s.pos++
	}
	return nil
}

func (s *scanner) literal(word string) error {
	if end := s.pos + len(word); end <= len(s.data) && string(s.data[s.pos:end]) == word {
		s.pos = end
		return nil
	}
	return s.unexpected("in a literal")
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek is the byte at pos, 0 at the end: no value of JSON has one.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) unexpected(where string) error {
	if s.pos >= len(s.data) {
		return errTruncated
	}
	return fmt.Errorf("there is %q at byte %d, %s", s.data[s.pos], s.pos, where)
}

// word is the text of a value that comes from a small vocabulary.
func (s *scanner) word(value []byte) string {
	if !isPlainString(value) {
		return text(value)
	}
	inner := value[1 : len(value)-1]
	if w, ok := s.words[string(inner)]; ok { // no allocation
		return w
	}
	w := string(inner)
	if len(s.words) < maxWords {
		if s.words == nil {
			s.words = make(map[string]string)
		}
		s.words[w] = w
	}
	return w
}

// repeated is the text of a value that mostly is the same as in the line before.
func (s *scanner) repeated(value []byte, slot int) string {
	if !isPlainString(value) {
		return text(value)
	}
	if inner := value[1 : len(value)-1]; s.last[slot] != string(inner) { // no allocation
		s.last[slot] = string(inner)
	}
	return s.last[slot]
}
