package claude

import (
	"bytes"
	"encoding/binary"
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
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '{' {
		return
	}
	for i = skipSpace(data, i+1); i < len(data) && data[i] != '}'; {
		end := skipString(data, i)
		key := data[i+1 : end-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			key = []byte(text(data[i:end]))
		}
		i = skipSpace(data, skipSpace(data, end)+1) // the colon
		end = skipValue(data, i)
		visit(key, data[i:end])
		i = skipComma(data, end)
	}
}

// elements shows the elements of an array to visit. They are parts of data.
func elements(data []byte, visit func(value []byte)) {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '[' {
		return
	}
	for i = skipSpace(data, i+1); i < len(data) && data[i] != ']'; {
		end := skipValue(data, i)
		visit(data[i:end])
		i = skipComma(data, end)
	}
}

// skipSpace gives the first place from i on that is no space.
func skipSpace(data []byte, i int) int {
	for i < len(data) && data[i] <= ' ' {
		i++
	}
	return i
}

// skipComma skips the comma behind a value, with the space around it.
func skipComma(data []byte, i int) int {
	if i = skipSpace(data, i); i < len(data) && data[i] == ',' {
		i = skipSpace(data, i+1)
	}
	return i
}

// skipString gives the place behind the valid string that begins at i: its end is a
// quote with an even number of backslashes before it.
func skipString(data []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(data[i:], '"')
		if n < 0 {
			return len(data) // it was not valid
		}
		i += n
		before := i
		for data[before-1] == '\\' {
			before--
		}
		if (i-before)%2 == 0 {
			return i + 1
		}
	}
}

// skipValue gives the place behind the value that begins at i.
func skipValue(data []byte, i int) int {
	switch data[i] {
	case '"':
		return skipString(data, i)
	case '{', '[':
	default:
		for i < len(data) && !ends[data[i]] {
			i++
		}
		return i
	}
	for depth := 0; ; {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
}

// ends are the bytes that end a number or a literal.
var ends = [256]bool{',': true, '}': true, ']': true, ' ': true, '\t': true, '\r': true, '\n': true}

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
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') >= 0 {
		return false
	}
	for len(inner) >= 8 {
		if binary.LittleEndian.Uint64(inner)&0x8080808080808080 != 0 {
			return false
		}
		inner = inner[8:]
	}
	for _, c := range inner {
		if c >= utf8.RuneSelf {
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
