package claude

import (
	"encoding/json"
	"strconv"
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
	if isPlainString(value) {
		return string(value[1 : len(value)-1])
	}
	var t string
	if json.Unmarshal(value, &t) != nil {
		return ""
	}
	return t
}
