package sandbox

import "strings"

// The forms of names in a Config. They are checked by hand: a localbox program
// starts once more for every sandbox, and three regular expressions would cost
// each of those starts 0.7 ms.

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isName: up to 63 letters, digits, '.', '_' and '-', the first a letter or digit.
func isName(s string) bool {
	if s == "" || len(s) > 63 || !isLetter(s[0]) && !isDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && !strings.ContainsRune("._-", rune(c)) {
			return false
		}
	}
	return true
}

// isVariable: letters, digits and '_', the first not a digit (environ(7)).
func isVariable(s string) bool {
	if s == "" || isDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && c != '_' {
			return false
		}
	}
	return true
}

// isDomain: a lower-case host name, or "*." and one (RFC 1035, with '_', which
// occurs).
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(s, "*."), ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && !isDigit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
