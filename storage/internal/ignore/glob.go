package ignore

import (
	"errors"
	"fmt"
	"strings"
)

// result is how a match ended. The last two keep a search short: what they say
// holds for the asterisks before, too.
type result int

const (
	no         result = iota
	yes               // the whole text matches
	noneEnds          // no later beginning can match: the text is over
	noneInPart        // no later beginning in this part of the path can match
)

// match matches text against the pattern from its ith byte on. Wildcards match no
// slash, but for two asterisks between slashes or at an end.
func match(pattern string, i int, text string) result {
	for i < len(pattern) {
		c := pattern[i]
		if c == '*' {
			return matchStar(pattern, i, text)
		}
		if text == "" {
			return noneEnds
		}
		next := i + 1
		ok := text[0] == c
		switch c {
		case '?':
			ok = text[0] != '/'
		case '\\':
			ok = text[0] == pattern[next]
			next++
		case '[':
			ok, next, _ = class(pattern, i, text[0])
			ok = ok && text[0] != '/'
		}
		if !ok {
			return no
		}
		i, text = next, text[1:]
	}
	if text == "" {
		return yes
	}
	return no
}

func matchStar(pattern string, i int, text string) result {
	after := i
	for after < len(pattern) && pattern[after] == '*' {
		after++
	}
	rest := pattern[after:]
	// Between slashes, or at an end, two or more asterisks reach across slashes.
	across := after-i >= 2 && (i == 0 || pattern[i-1] == '/') && (rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`))
	switch {
	case across && rest != "" && rest[0] == '/' && match(pattern, after+1, text) == yes: // no directory at all
		return yes
	case rest == "" && !across && strings.Contains(text, "/"):
		return noneInPart
	case rest == "":
		return yes
	case !across && rest[0] == '/': // so it takes all of this part of the path
		end := strings.IndexByte(text, '/')
		if end < 0 {
			return noneEnds
		}
		return match(pattern, after, text[end:])
	}
	for ; text != ""; text = text[1:] {
		found := match(pattern, after, text)
		switch {
		case found != no && (found != noneInPart || !across):
			return found
		case found == no && !across && text[0] == '/':
			return noneInPart
		}
	}
	return noneEnds
}

var (
	errBracket = errors.New("its bracket is not closed")
	errEscape  = errors.New("its last backslash escapes nothing")
)

// check finds what makes a pattern match nothing at all.
func check(pattern string) error {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			if i++; i == len(pattern) {
				return errEscape
			}
		case '[':
			_, next, err := class(pattern, i, 0)
			if err != nil {
				return err
			}
			i = next - 1
		}
	}
	return nil
}

// class reports whether c is in the bracket expression that begins at i, and where
// what follows it begins.
func class(pattern string, i int, c byte) (in bool, next int, err error) {
	i++
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	var low byte // what a range may begin with; 0: nothing
	for first := true; first || i < len(pattern) && pattern[i] != ']'; first = false {
		if i >= len(pattern) {
			return false, 0, errBracket
		}
		if pattern[i] == '-' && low != 0 && i+1 < len(pattern) && pattern[i+1] != ']' {
			high, after, err := single(pattern, i+1)
			if err != nil {
				return false, 0, err
			}
			in = in || low <= c && c <= high
			i, low = after, 0
			continue
		}
		if strings.HasPrefix(pattern[i:], "[:") {
			end := strings.IndexByte(pattern[i+2:], ']')
			if end < 0 {
				return false, 0, errBracket
			}
			if set, ok := strings.CutSuffix(pattern[i+2:i+2+end], ":"); ok {
				has, known := sets[set]
				if !known {
					return false, 0, fmt.Errorf("there is no [:%s:]", set)
				}
				in = in || has(c)
				i, low = i+2+end+1, 0
				continue
			}
		}
		one, after, err := single(pattern, i)
		if err != nil {
			return false, 0, err
		}
		in = in || one == c
		i, low = after, one
	}
	if i >= len(pattern) {
		return false, 0, errBracket
	}
	return in != negated, i + 1, nil
}

// single is one byte of a bracket expression, which may be escaped.
func single(pattern string, i int) (c byte, next int, err error) {
	if pattern[i] == '\\' {
		i++
	}
	if i >= len(pattern) {
		return 0, 0, errBracket
	}
	return pattern[i], i + 1, nil
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func upper(c byte) bool { return c >= 'A' && c <= 'Z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
func alpha(c byte) bool { return lower(c) || upper(c) }
func alnum(c byte) bool { return alpha(c) || digit(c) }
func graph(c byte) bool { return c > ' ' && c < 0x7f }

// sets are the named ones, in ASCII as with git.
var sets = map[string]func(byte) bool{
	"alnum": alnum, "alpha": alpha, "digit": digit, "graph": graph, "lower": lower, "upper": upper,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"print":  func(c byte) bool { return c == ' ' || graph(c) },
	"punct":  func(c byte) bool { return graph(c) && !alnum(c) },
	"space":  func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' },
	"xdigit": func(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' },
}
