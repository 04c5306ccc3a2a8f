package dockerfile

import (
	"fmt"
	"regexp"
	"strings"
)

// Lookup gives the value of a variable.
type Lookup func(name string) (value string, set bool)

// rawWords splits at white space that is not quoted, and keeps quotes.
func rawWords(s string, escape byte) []string {
	var words []string
	start, quote := -1, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		if quote == 0 && (c == ' ' || c == '\t' || c == '\n') {
			if start >= 0 {
				words = append(words, s[start:i])
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		switch {
		case c == escape && quote != '\'' && i+1 < len(s):
			i++
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == quote:
			quote = 0
		}
	}
	if start >= 0 {
		words = append(words, s[start:])
	}
	return words
}

// Words splits Rest, or takes JSON, and expands every word.
func (c *Command) Words(get Lookup) ([]string, error) {
	raw := c.JSON
	if raw == nil {
		raw = rawWords(c.Rest, c.Escape)
	}
	words := make([]string, len(raw))
	for i, w := range raw {
		var err error
		if words[i], err = c.Expand(w, get); err != nil {
			return nil, err
		}
	}
	return words, nil
}

// Pairs reads KEY=VALUE pairs, or the old form of one key and the rest of the
// line. Values are expanded, keys too.
func (c *Command) Pairs(get Lookup) ([][2]string, error) {
	raw := rawWords(c.Rest, c.Escape)
	if len(raw) > 0 && !strings.Contains(raw[0], "=") {
		key, value := cutSpace(c.Rest)
		if value == "" {
			return nil, fmt.Errorf("%w: %s %s needs a value", ErrSyntax, c.Name, key)
		}
		v, err := c.Expand(value, get)
		return [][2]string{{key, v}}, err
	}
	var pairs [][2]string
	for _, w := range raw {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%w: %s: %q is not of the form KEY=VALUE", ErrSyntax, c.Name, w)
		}
		k, err := c.Expand(key, get)
		if err != nil {
			return nil, err
		}
		v, err := c.Expand(value, get)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]string{k, v})
	}
	return pairs, nil
}

// Expand puts in the values of variables and takes quotes off.
func (c *Command) Expand(word string, get Lookup) (string, error) {
	e := &expander{s: word, escape: c.Escape, get: get}
	if e.escape == 0 {
		e.escape = '\\'
	}
	out, err := e.until("")
	if err != nil {
		return "", fmt.Errorf("%w: %s: %q: %w", ErrSyntax, c.Name, word, err)
	}
	return out, nil
}

// ExpandText puts the values of variables into a heredoc, in which quotes mean
// nothing.
func (c *Command) ExpandText(text string, get Lookup) (string, error) {
	e := &expander{s: text, escape: c.Escape, get: get, text: true}
	if e.escape == 0 {
		e.escape = '\\'
	}
	return e.until("")
}

// expander goes over one word.
type expander struct {
	s      string
	i      int
	escape byte
	get    Lookup
	text   bool // quotes are only characters
	depth  int
}

// until expands up to one of the end characters, which it passes; without any, up
// to the end of the word.
func (e *expander) until(ends string) (string, error) {
	var b strings.Builder
	for e.i < len(e.s) {
		c := e.s[e.i]
		switch {
		case strings.IndexByte(ends, c) >= 0:
			e.i++
			return b.String(), nil
		case c == '\'' && !e.text:
			if err := e.single(&b); err != nil {
				return "", err
			}
		case c == '"' && !e.text:
			if err := e.double(&b); err != nil {
				return "", err
			}
		case c == '$':
			if err := e.dollar(&b); err != nil {
				return "", err
			}
		case c == e.escape && e.i+1 < len(e.s):
			if next := e.s[e.i+1]; e.text && next != '$' && next != e.escape {
				b.WriteByte(c)
			}
			b.WriteByte(e.s[e.i+1])
			e.i += 2
		case c == e.escape && !e.text:
			e.i++ // at the very end
		default:
			b.WriteByte(c)
			e.i++
		}
	}
	if ends != "" {
		return "", fmt.Errorf("%q is missing", ends)
	}
	return b.String(), nil
}

func (e *expander) single(b *strings.Builder) error {
	end := strings.IndexByte(e.s[e.i+1:], '\'')
	if end < 0 {
		return fmt.Errorf("a quote is missing")
	}
	b.WriteString(e.s[e.i+1 : e.i+1+end])
	e.i += end + 2
	return nil
}

func (e *expander) double(b *strings.Builder) error {
	for e.i++; e.i < len(e.s); {
		switch c := e.s[e.i]; {
		case c == '"':
			e.i++
			return nil
		case c == '$':
			if err := e.dollar(b); err != nil {
				return err
			}
		case c == e.escape && e.i+1 < len(e.s):
			// Only what means something in here loses its escape.
			if next := e.s[e.i+1]; next != '"' && next != '$' && next != e.escape {
				b.WriteByte(c)
			}
			b.WriteByte(e.s[e.i+1])
			e.i += 2
		default:
			b.WriteByte(c)
			e.i++
		}
	}
	return fmt.Errorf("a quote is missing")
}

var nameAt = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#?$!-])`)

func (e *expander) dollar(b *strings.Builder) error {
	e.i++
	if e.i < len(e.s) && e.s[e.i] == '{' {
		e.i++
		return e.braces(b)
	}
	name := nameAt.FindString(e.s[e.i:])
	if name == "" {
		b.WriteByte('$')
		return nil
	}
	e.i += len(name)
	v, _ := e.get(name)
	b.WriteString(v)
	return nil
}

// maxDepth is how deep ${A:-${B:-…}} may go.
const maxDepth = 64

// braces expands ${NAME}, and with a modifier, after the brace.
func (e *expander) braces(b *strings.Builder) error {
	name := nameAt.FindString(e.s[e.i:])
	if name == "" {
		return fmt.Errorf("${ needs a name")
	}
	e.i += len(name)
	rest := e.s[e.i:]
	value, set := e.get(name)
	if strings.HasPrefix(rest, "}") {
		e.i++
		b.WriteString(value)
		return nil
	}
	if e.depth++; e.depth > maxDepth {
		return fmt.Errorf("${ is nested too deeply")
	}
	defer func() { e.depth-- }()
	op := modifier.FindString(rest)
	if op == "" {
		return fmt.Errorf("${%s is followed by what is no modifier", name)
	}
	e.i += len(op)
	if op[0] == '/' {
		return e.replacement(b, value, op == "//")
	}
	arg, err := e.until("}")
	if err != nil {
		return err
	}
	out, err := modify(name, value, set, op, arg)
	b.WriteString(out)
	return err
}

// replacement expands ${NAME/pattern/by}, after the first slashes.
func (e *expander) replacement(b *strings.Builder, value string, all bool) error {
	pattern, err := e.until("/}")
	if err != nil {
		return err
	}
	by := ""
	if e.s[e.i-1] == '/' {
		if by, err = e.until("}"); err != nil {
			return err
		}
	}
	b.WriteString(replace(value, pattern, by, all))
	return nil
}

var modifier = regexp.MustCompile(`^(:[-+?]|[-+?]|##?|%%?|//?)`)

func modify(name, value string, set bool, op, arg string) (string, error) {
	if strings.HasPrefix(op, ":") {
		set = value != ""
		op = op[1:]
	}
	switch op {
	case "-":
		if !set {
			return arg, nil
		}
	case "+":
		if !set {
			return "", nil
		}
		return arg, nil
	case "?":
		if !set {
			return "", fmt.Errorf("%s is not set: %s", name, arg)
		}
	case "#", "##":
		return trimPrefix(value, arg, op == "##"), nil
	case "%", "%%":
		return trimSuffix(value, arg, op == "%%"), nil
	}
	return value, nil
}
