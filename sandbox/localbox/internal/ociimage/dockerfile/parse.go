// Package dockerfile reads the commands of a Dockerfile, as its reference
// describes them (https://docs.docker.com/reference/dockerfile/).
package dockerfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrSyntax is matched by what is wrong with the text.
var ErrSyntax = errors.New("not a Dockerfile command")

// Command is one command. What it means to expand variables in it depends on its
// name, so that nothing is expanded here.
type Command struct {
	Name     string // in capitals
	Flags    []Flag
	Rest     string   // what follows the flags, its lines joined
	JSON     []string // Rest, if it is a list in the form of JSON
	Heredocs []Heredoc
	Line     int // the first one, counted from 1
	Escape   byte
}

// Flag is one of the options between a command's name and what follows.
type Flag struct{ Name, Value string }

// Heredoc is text that follows a command, up to a line with its name.
type Heredoc struct {
	Name   string
	Text   string
	Quoted bool // nothing is expanded in it
	Tabs   bool // leading tabs are taken off (<<-)
}

// String is the command in one line.
func (c *Command) String() string {
	var b strings.Builder
	b.WriteString(c.Name)
	for _, f := range c.Flags {
		fmt.Fprintf(&b, " --%s=%s", f.Name, f.Value)
	}
	if c.Rest != "" {
		b.WriteString(" " + c.Rest)
	}
	return b.String()
}

// Flag returns the value of a flag, and whether it is there.
func (c *Command) Flag(name string) (string, bool) {
	for _, f := range c.Flags {
		if f.Name == name {
			return f.Value, true
		}
	}
	return "", false
}

// known are the commands there are; those with true may have heredocs.
var known = map[string]bool{"FROM": false, "RUN": true, "CMD": false, "LABEL": false, "MAINTAINER": false, "EXPOSE": false,
	"ENV": false, "ADD": true, "COPY": true, "ENTRYPOINT": false, "VOLUME": false, "USER": false, "WORKDIR": false,
	"ARG": false, "ONBUILD": false, "STOPSIGNAL": false, "HEALTHCHECK": false, "SHELL": false}

// scanner goes over the lines of the text.
type scanner struct {
	lines  []string
	next   int
	escape byte
}

// Parse reads all commands of a text. Errors match ErrSyntax and name the line.
func Parse(text string) ([]Command, error) {
	s := &scanner{lines: strings.Split(strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n"), "\n"), escape: '\\'}
	s.directives()
	var commands []Command
	for {
		line, n, ok := s.command()
		if !ok {
			return commands, nil
		}
		c, err := s.parse(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrSyntax, n, err)
		}
		c.Line, c.Escape = n, s.escape
		commands = append(commands, *c)
	}
}

var directive = regexp.MustCompile(`^\s*#\s*([A-Za-z]+)\s*=\s*(.*?)\s*$`)

// directives reads the comments at the start that mean something.
func (s *scanner) directives() {
	for _, line := range s.lines {
		m := directive.FindStringSubmatch(line)
		if m == nil {
			return
		}
		if strings.EqualFold(m[1], "escape") && (m[2] == "`" || m[2] == `\`) {
			s.escape = m[2][0]
		}
	}
}

func isComment(line string) bool {
	return strings.HasPrefix(strings.TrimLeft(line, " \t"), "#")
}

// command joins the lines of the next command; n is the number of the first.
func (s *scanner) command() (text string, n int, ok bool) {
	var b strings.Builder
	for s.next < len(s.lines) {
		line := s.lines[s.next]
		s.next++
		if isComment(line) || strings.TrimSpace(line) == "" {
			continue // within a command as well
		}
		if !ok {
			line, n, ok = strings.TrimLeft(line, " \t"), s.next, true
		}
		part, more := s.continued(line)
		b.WriteString(part)
		if !more {
			break
		}
	}
	return strings.TrimSpace(b.String()), n, ok
}

// continued tells whether a line goes on in the next one.
func (s *scanner) continued(line string) (string, bool) {
	cut := strings.TrimRight(line, " \t")
	if !strings.HasSuffix(cut, string(s.escape)) {
		return line, false
	}
	return cut[:len(cut)-1], true
}

func (s *scanner) parse(line string) (*Command, error) {
	name, rest := cutSpace(line)
	c := &Command{Name: strings.ToUpper(name)}
	heredocs, ok := known[c.Name]
	if !ok {
		return nil, fmt.Errorf("%q is not a command", name)
	}
	var err error
	if c.Name != "ONBUILD" {
		if c.Flags, rest, err = flags(rest); err != nil {
			return nil, err
		}
	}
	c.Rest = rest
	if c.Rest == "" {
		return nil, fmt.Errorf("%s needs an argument", c.Name)
	}
	if strings.HasPrefix(rest, "[") {
		var list []string
		if json.Unmarshal([]byte(rest), &list) == nil {
			c.JSON = list
		}
	}
	if heredocs && c.JSON == nil {
		c.Heredocs, err = s.heredocs(rest)
	}
	return c, err
}

func cutSpace(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// flags takes the options off: words that begin with two dashes.
func flags(rest string) (list []Flag, _ string, err error) {
	for strings.HasPrefix(rest, "--") {
		var word string
		word, rest = cutSpace(rest)
		if word == "--" {
			break
		}
		name, value, _ := strings.Cut(word[2:], "=")
		if name == "" {
			return nil, "", fmt.Errorf("%q is not an option", word)
		}
		list = append(list, Flag{strings.ToLower(name), value})
	}
	return list, rest, nil
}

var heredocWord = regexp.MustCompile(`^[0-9]*<<(-?)(['"]?)([A-Za-z_][A-Za-z0-9_]*)(['"]?)$`)

// heredocs reads the texts that the words of a command ask for.
func (s *scanner) heredocs(rest string) (list []Heredoc, err error) {
	for _, word := range rawWords(rest, s.escape) {
		m := heredocWord.FindStringSubmatch(word)
		if m == nil || m[2] != m[4] {
			continue
		}
		h := Heredoc{Name: m[3], Tabs: m[1] != "", Quoted: m[2] != ""}
		if h.Text, err = s.until(h.Name, h.Tabs); err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}

// until reads lines up to the one that is name.
func (s *scanner) until(name string, tabs bool) (string, error) {
	var b strings.Builder
	for s.next < len(s.lines) {
		line := s.lines[s.next]
		s.next++
		if tabs {
			line = strings.TrimLeft(line, "\t")
		}
		if line == name {
			return b.String(), nil
		}
		b.WriteString(line + "\n")
	}
	return "", fmt.Errorf("the text up to a line %q has no end", name)
}

// IsHeredoc reports whether a word of Rest stands for a heredoc.
func IsHeredoc(word string) bool {
	m := heredocWord.FindStringSubmatch(word)
	return m != nil && m[2] == m[4]
}
