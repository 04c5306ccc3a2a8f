package claude

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions here take values that are known to be valid JSON. Where one has
// another shape than is asked for, they give the zero value: a field that comes
// to mean something else must not make a message unreadable.

// members shows the members of an object to visit. The values are parts of data.
func members(data []byte, visit func(key, value []byte)) {
	s := scanner{data: data}
	if s.space(); s.peek() == '{' {
		_ = s.object(visit) // data is valid
	}
}

// elements shows the elements of an array to visit. They are parts of data.
func elements(data []byte, visit func(value []byte)) {
	s := scanner{data: data}
	if s.space(); s.peek() == '[' {
		_ = s.array(visit) // data is valid
	}
}

// number is a whole number.
func number(value []byte) int {
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return 0
	}
	return n
}

// texts are the texts in an array.
func texts(value []byte) (all []string) {
	elements(value, func(value []byte) { all = append(all, text(value)) })
	return all
}

// isTrue reports whether a value is true.
func isTrue(value []byte) bool { return string(value) == "true" }

// raw is a value to be kept; null is none.
func raw(value []byte) json.RawMessage {
	if string(value) == "null" {
		return nil
	}
	return value[:len(value):len(value)]
}

// isPlainString reports whether a valid value is a string that needs no
// decoding: ASCII without escapes.
func isPlainString(value []byte) bool {
	if value[0] != '"' {
		return false
	}
	for _, c := range value[1 : len(value)-1] {
		if c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

// text is the text of a valid value; "" if it is not a string.
func text(value []byte) string {
	switch {
	case isPlainString(value):
		return string(value[1 : len(value)-1])
	case value[0] != '"':
		return ""
	case utf8.Valid(value):
		return unescape(value[1 : len(value)-1])
	}
	var t string
	if json.Unmarshal(value, &t) != nil { // with U+FFFD for what is not UTF-8
		return ""
	}
	return t
}

// unescape is what the inside of a valid string stands for.
func unescape(s []byte) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			b.Write(s)
			return b.String()
		}
		b.Write(s[:i])
		if s[i+1] != 'u' {
			b.WriteByte(escapes[s[i+1]])
			s = s[i+2:]
			continue
		}
		r, n := rune16(s[i:])
		b.WriteRune(r)
		s = s[i+n:]
	}
}

// escapes are the bytes that a letter behind a backslash stands for.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// rune16 reads a valid \uXXXX, or two that are a surrogate pair, and gives its
// length. Half a pair is U+FFFD.
func rune16(s []byte) (r rune, n int) {
	r = hex4(s[2:6])
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(s[8:12])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

func hex4(s []byte) (r rune) {
	for _, c := range s[:4] {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a':
			c -= 'a' - 10
		default:
			c -= 'A' - 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
