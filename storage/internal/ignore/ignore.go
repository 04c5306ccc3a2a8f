// Package ignore matches paths against patterns in the syntax of .gitignore files,
// as gitignore(5) describes it and git's check-ignore behaves.
package ignore

import (
	"fmt"
	"strings"
)

// Matcher holds the patterns of one list, as if they stood in a .gitignore at the
// top. It is safe for concurrent use. The zero value, and nil, match nothing.
type Matcher struct {
	rules []rule
}

// rule is one pattern, compiled.
type rule struct {
	glob    string // without what the fields below say
	literal bool   // glob has no special characters
	negated bool
	dirOnly bool
	base    bool // it is about the last part of a path alone
}

// New compiles patterns, one for each line of a .gitignore. Empty ones and comments
// are passed over. An error names the pattern that can never match.
func New(patterns []string) (*Matcher, error) {
	m := new(Matcher)
	for _, text := range patterns {
		r, ok, err := compile(text)
		if err != nil {
			return nil, fmt.Errorf("exclude pattern %q: %w", text, err)
		}
		if ok {
			m.rules = append(m.rules, r)
		}
	}
	return m, nil
}

func compile(text string) (r rule, ok bool, err error) {
	if strings.ContainsAny(text, "\x00\n") {
		return r, false, fmt.Errorf("it holds a line break or a NUL")
	}
	text = trimSpaces(text)
	if text == "" || text[0] == '#' {
		return r, false, nil
	}
	if text[0] == '!' {
		r.negated = true
		text = text[1:]
	}
	if n := len(text); n > 0 && text[n-1] == '/' {
		r.dirOnly = true
		text = text[:n-1]
	}
	if text == "" {
		return r, false, nil
	}
	r.base = !strings.Contains(text, "/")
	r.glob = strings.TrimPrefix(text, "/")
	r.literal = !strings.ContainsAny(r.glob, `*?[\`)
	if n := len(r.glob) - len(strings.TrimRight(r.glob, `\`)); n%2 == 1 {
		return r, false, fmt.Errorf("it ends in a backslash that escapes nothing")
	}
	return r, true, nil
}

// trimSpaces removes blanks at the end that no backslash protects.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			end = i + 1
		case s[i] != ' ':
			end = i + 1
		}
	}
	return s[:end]
}

// Match reports whether a path, relative and separated by slashes, is excluded:
// by a pattern of its own, or because a directory above it is.
func (m *Matcher) Match(path string, isDir bool) bool {
	for i := range len(path) {
		if path[i] == '/' && m.MatchSelf(path[:i], true) {
			return true
		}
	}
	return m.MatchSelf(path, isDir)
}

// MatchSelf is Match for a path of which it is known that no directory above it is
// excluded.
func (m *Matcher) MatchSelf(path string, isDir bool) bool {
	if m == nil {
		return false
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(m.rules) - 1; i >= 0; i-- {
		r := &m.rules[i]
		if r.dirOnly && !isDir {
			continue
		}
		text := path
		if r.base {
			text = base
		}
		if r.literal && r.glob == text || !r.literal && glob(r.glob, text, !r.base) {
			return !r.negated
		}
	}
	return false
}

// glob reports whether pattern matches all of text. With paths set, asterisks
// next to slashes have their special meaning, and no other wildcard matches a
// slash.
func glob(pattern, text string, paths bool) bool {
	return (&globber{paths: paths}).match(pattern, text, true)
}

type globber struct {
	paths bool
	steps int
}

// maxSteps ends a search that would take time without bound.
const maxSteps = 1 << 16

// match matches the rest of a pattern. start says that it begins behind a slash or
// at the very start.
func (g *globber) match(p, s string, start bool) bool {
	for len(p) > 0 {
		if g.steps++; g.steps > maxSteps {
			return false
		}
		if p[0] == '*' {
			return g.star(p, s, start)
		}
		if len(s) == 0 {
			return false
		}
		var ok bool
		switch p[0] {
		case '?':
			ok, p = s[0] != '/', p[1:]
		case '[':
			ok, p = class(p, s[0])
		case '\\':
			ok, p = s[0] == p[1], p[2:]
		default:
			ok, p = s[0] == p[0], p[1:]
		}
		if !ok {
			return false
		}
		start = s[0] == '/'
		s = s[1:]
	}
	return len(s) == 0
}

// star matches a pattern that begins with one or more asterisks.
func (g *globber) star(p, s string, start bool) bool {
	rest := strings.TrimLeft(p, "*")
	if g.paths && len(p)-len(rest) == 2 && start && (rest == "" || rest[0] == '/') {
		if rest == "" {
			return true // all below
		}
		// "**/" is any number of directories, none included.
		if g.match(rest[1:], s, true) {
			return true
		}
		for i := range len(s) {
			if s[i] == '/' && g.match(rest[1:], s[i+1:], true) {
				return true
			}
		}
		return false
	}
	for i := 0; ; i++ {
		if g.match(rest, s[i:], false) {
			return true
		}
		if i == len(s) || s[i] == '/' || g.steps > maxSteps {
			return false
		}
	}
}

// class matches one byte against a bracket expression, and gives what follows it. A
// bracket that is never closed matches nothing.
func class(p string, c byte) (ok bool, rest string) {
	i, negated := 1, false
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		negated = true
		i++
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return false, ""
		}
		if p[i] == ']' && !first {
			break
		}
		if strings.HasPrefix(p[i:], "[:") {
			if end := strings.Index(p[i+2:], ":]"); end >= 0 {
				in, known := named(p[i+2:i+2+end], c)
				if !known {
					return false, ""
				}
				ok = ok || in
				i += end + 4
				continue
			}
		}
		lo, n := literal(p[i:])
		if n == 0 {
			return false, ""
		}
		i += n
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			if hi, n = literal(p[i+1:]); n == 0 {
				return false, ""
			}
			i += 1 + n
		}
		ok = ok || lo <= c && c <= hi
	}
	return ok != negated && c != '/', p[i+1:]
}

// literal gives the byte that p begins with, which a backslash may escape, and how
// long that is; 0 where there is none.
func literal(p string) (c byte, n int) {
	switch {
	case p == "" || p == `\`:
		return 0, 0
	case p[0] == '\\':
		return p[1], 2
	}
	return p[0], 1
}

func named(name string, c byte) (in, known bool) {
	lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	}
	return false, false
}
