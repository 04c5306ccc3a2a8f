package dockerfile

import "strings"

// glob reports whether all of s matches a pattern in which * stands for any
// characters and ? for one.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// trimPrefix takes the shortest or longest start that matches off.
func trimPrefix(s, pattern string, longest bool) string {
	for n := range len(s) + 1 {
		if longest {
			n = len(s) - n
		}
		if glob(pattern, s[:n]) {
			return s[n:]
		}
	}
	return s
}

// trimSuffix takes the shortest or longest end that matches off.
func trimSuffix(s, pattern string, longest bool) string {
	for n := range len(s) + 1 {
		if !longest {
			n = len(s) - n
		}
		if glob(pattern, s[n:]) {
			return s[:n]
		}
	}
	return s
}

// replace puts by in place of the longest match at the first, or every, place
// where there is one.
func replace(s, pattern, by string, all bool) string {
	if pattern == "" {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		n := longestMatch(pattern, s[i:])
		if n == 0 {
			b.WriteByte(s[i])
			i++
			continue
		}
		b.WriteString(by)
		i += n
		if !all {
			b.WriteString(s[i:])
			break
		}
	}
	return b.String()
}

func longestMatch(pattern, s string) int {
	for n := len(s); n > 0; n-- {
		if glob(pattern, s[:n]) {
			return n
		}
	}
	return 0
}
