// Package ignore matches paths against patterns in the syntax of .gitignore files,
// as gitignore(5) describes it and as git's check-ignore behaves.
package ignore

import (
	"errors"
	"fmt"
	"strings"
)

// Matcher holds the patterns of one list, as if they stood in a .gitignore at the
// top. It is safe for concurrent use. The zero value, and nil, match nothing.
type Matcher struct {
	rules []rule
	names map[string][]int // rules about a plain name, in order, by that name
	rest  []int            // all other rules, in order
}

// rule is one pattern, compiled.
type rule struct {
	kind    kind
	prefix  string // of glob: what a path begins with before the first wildcard
	text    string // a name, a path, the end of a name, or a pattern
	negated bool
	dirOnly bool
}

type kind int

const (
	name     kind = iota // the last part of the path is text
	suffix               // the last part ends in text
	nameGlob             // the last part matches text
	whole                // the path is text
	glob                 // the path is prefix and then matches text
)

// New compiles patterns, one for each line of a .gitignore. Empty ones and comments
// are passed over. A pattern that can never match, as a bracket of it is not closed
// or its last backslash escapes nothing, gives an error that names it.
func New(patterns []string) (*Matcher, error) {
	m := &Matcher{names: map[string][]int{}}
	for _, line := range patterns {
		r, ok, err := compile(line)
		if err != nil {
			return nil, fmt.Errorf("ignore pattern %q: %w", line, err)
		}
		if !ok {
			continue
		}
		if r.kind == name {
			m.names[r.text] = append(m.names[r.text], len(m.rules))
		} else {
			m.rest = append(m.rest, len(m.rules))
		}
		m.rules = append(m.rules, r)
	}
	return m, nil
}

const wildcards = `*?[\`

func compile(line string) (r rule, ok bool, err error) {
	if strings.ContainsAny(line, "\x00\n") {
		return r, false, errors.New("it holds a line break or a NUL")
	}
	text := trimSpaces(strings.TrimSuffix(line, "\r"))
	if strings.HasPrefix(text, "#") {
		return r, false, nil
	}
	text, r.negated = strings.CutPrefix(text, "!")
	text, r.dirOnly = strings.CutSuffix(text, "/")
	if text == "" {
		return r, false, nil
	}
	if err := check(text); err != nil {
		return r, false, err
	}
	plain := !strings.ContainsAny(text, wildcards)
	if !strings.Contains(text, "/") {
		end, isSuffix := strings.CutPrefix(text, "*")
		switch {
		case plain:
			r.kind, r.text = name, text
		case isSuffix && !strings.ContainsAny(end, wildcards):
			r.kind, r.text = suffix, end
		default:
			r.kind, r.text = nameGlob, text
		}
		return r, true, nil
	}
	text = strings.TrimPrefix(text, "/")
	if plain {
		r.kind, r.text = whole, text
		return r, true, nil
	}
	// As git does, so that two asterisks behind a plain beginning are taken for
	// ones at the start: "a/b**" reaches below a/bc.
	at := strings.IndexAny(text, wildcards)
	r.kind, r.prefix, r.text = glob, text[:at], text[at:]
	return r, true, nil
}

// trimSpaces takes off the spaces at the end that no backslash keeps.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(s))
	}
	return s[:end]
}

// Match reports whether a path, relative and separated by slashes, is ignored: by
// a pattern of its own, or because a directory above it is, out of which no pattern
// can take it.
func (m *Matcher) Match(path string, isDir bool) bool {
	for at := 0; ; {
		next := strings.IndexByte(path[at:], '/')
		if next < 0 {
			return m.MatchSelf(path, isDir)
		}
		at += next + 1
		if m.MatchSelf(path[:at-1], true) {
			return true
		}
	}
}

// MatchSelf is Match for a path of which it is known that no directory above it is
// ignored. It is for those who walk a tree and do not enter what is ignored.
func (m *Matcher) MatchSelf(path string, isDir bool) bool {
	if m == nil || len(m.rules) == 0 {
		return false
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	best := -1 // the last rule that matches decides
	named := m.names[base]
	for i := len(named) - 1; i >= 0 && best < 0; i-- {
		if isDir || !m.rules[named[i]].dirOnly {
			best = named[i]
		}
	}
	for i := len(m.rest) - 1; i >= 0 && m.rest[i] > best; i-- {
		if m.rules[m.rest[i]].matches(path, base, isDir) {
			best = m.rest[i]
		}
	}
	return best >= 0 && !m.rules[best].negated
}

func (r *rule) matches(path, base string, isDir bool) bool {
	if r.dirOnly && !isDir {
		return false
	}
	switch r.kind {
	case suffix:
		return strings.HasSuffix(base, r.text)
	case nameGlob:
		return match(r.text, 0, base) == yes
	case whole:
		return path == r.text
	case glob:
		return strings.HasPrefix(path, r.prefix) && match(r.text, 0, path[len(r.prefix):]) == yes
	}
	return base == r.text
}
