//go:build linux

package localbox

import (
	"bytes"
	"io"
	"slices"
	"strings"
)

// redactor writes lines on, without the values of secrets. It is not safe for
// concurrent use.
type redactor struct {
	w       io.Writer // nil: nowhere
	secrets []string  // longest first
	line    []byte
}

// shortSecret is the length below which a value is no secret that could be told
// from the words around it.
const shortSecret = 4

func newRedactor(w io.Writer, secrets []string) *redactor {
	r := &redactor{w: w}
	for _, kv := range secrets {
		_, v, _ := strings.Cut(kv, "=")
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= shortSecret {
				r.secrets = append(r.secrets, line)
			}
		}
	}
	slices.SortFunc(r.secrets, func(a, b string) int { return len(b) - len(a) })
	return r
}

// maxLine is how long a line is kept together.
const maxLine = 64 << 10

// Write implements io.Writer. It never fails: a log does not end a build.
func (r *redactor) Write(p []byte) (int, error) {
	r.line = append(r.line, p...)
	if cut := bytes.LastIndexAny(r.line, "\r\n"); cut >= 0 {
		r.pass(cut + 1)
	}
	if len(r.line) > maxLine {
		r.pass(len(r.line))
	}
	return len(p), nil
}

// Flush writes what is no whole line.
func (r *redactor) Flush() { r.pass(len(r.line)) }

func (r *redactor) pass(n int) {
	if r.w != nil && n > 0 {
		_, _ = r.w.Write([]byte(r.clean(string(r.line[:n]))))
	}
	r.line = append(r.line[:0], r.line[n:]...)
}

func (r *redactor) clean(s string) string {
	for _, v := range r.secrets {
		s = strings.ReplaceAll(s, v, "[redacted]")
	}
	return s
}

// tail passes output on and keeps the end of it.
type tail struct {
	w    io.Writer
	keep []byte
	red  *redactor
}

// tailSize is how much of a failed command's output is in its error.
const tailSize = 4 << 10

func newTail(w io.Writer, secrets []string) *tail {
	return &tail{w: w, red: newRedactor(nil, secrets)}
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.keep = append(t.keep, p...)
	// Twice as much, so that a secret at the cut is whole when it is looked for.
	if extra := len(t.keep) - 2*tailSize; extra > 0 {
		t.keep = append(t.keep[:0], t.keep[extra:]...)
	}
	return t.w.Write(p)
}

// String is the end of the output, from the start of a line where there is one.
func (t *tail) String() string {
	s := t.red.clean(string(t.keep))
	if len(s) <= tailSize {
		return s
	}
	s = s[len(s)-tailSize:]
	if _, rest, ok := strings.Cut(s, "\n"); ok {
		s = rest
	}
	return "...\n" + s
}
