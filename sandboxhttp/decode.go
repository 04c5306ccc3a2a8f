package sandboxhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"time"
	"unicode/utf8"

	"github.com/vivarium-go/vivarium/sandbox"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

// readBody reads a bounded body of JSON. An empty one is "{}".
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	// Not every ResponseWriter can; then the server's own limits hold.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.limits.Body))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge,
			fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, newProblem(http.StatusBadRequest, codeInvalidRequest, "the body did not arrive in time").because(err)
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, codeInvalidRequest, "the body was cut off").because(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	if len(body) == 0 {
		return []byte("{}"), nil
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, newProblem(http.StatusUnsupportedMediaType, codeUnsupportedMediaType,
			"send the body as Content-Type: application/json")
	}
	return body, nil
}

// fieldErrors collects what is wrong, so that one answer names all of it.
type fieldErrors []fieldError

func (f *fieldErrors) add(field, format string, args ...any) {
	*f = append(*f, fieldError{field, fmt.Sprintf(format, args...)})
}

func (f *fieldErrors) when(cond bool, field, format string, args ...any) {
	if cond {
		f.add(field, format, args...)
	}
}

// problem is nil when nothing is wrong.
func (f fieldErrors) problem(status int, code, detail string) error {
	if len(f) == 0 {
		return nil
	}
	p := newProblem(status, code, detail)
	p.Errors = f
	return p
}

// decodeBody reads one JSON object into fields, by the exact names of its
// members. What is not JSON, what follows it, members that are there twice or
// are unknown, and values of another type are refused, by name. A null is as if
// the member were not there.
func decodeBody(body []byte, fields map[string]any) error {
	if !utf8.Valid(body) {
		return newProblem(http.StatusBadRequest, codeInvalidRequest, "the body is not UTF-8")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return newProblem(http.StatusBadRequest, codeInvalidRequest, "the body is not JSON: "+syntax(err))
	}
	var bad fieldErrors
	bad.object("", raw, fields)
	return bad.problem(http.StatusBadRequest, codeInvalidRequest, "the body is not of the right shape")
}

// syntax says where, without quoting the body: it may hold a secret.
func syntax(err error) string {
	var e *json.SyntaxError
	if errors.As(err, &e) {
		return fmt.Sprintf("the fault is at byte %d", e.Offset)
	}
	return "it cannot be read"
}

// nested is a target for an object; there is set when it was sent.
type nested struct {
	there  *bool
	fields map[string]any
}

// object reads the members of one object. A target is a pointer to a string, a
// secret, a number, a bool, a list of strings or a map of strings, or nested.
func (f *fieldErrors) object(path string, raw json.RawMessage, fields map[string]any) {
	f.members(path, raw, func(name string, value json.RawMessage) {
		target, known := fields[name]
		if !known {
			f.add(path+clip(name), "there is no such field")
			return
		}
		f.value(path+name, value, target)
	})
}

// members calls fn for each member, in order, once for each name.
func (f *fieldErrors) members(path string, raw json.RawMessage, fn func(name string, value json.RawMessage)) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		f.add(orBody(path), "use an object")
		return
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, isName := token.(string)
		var value json.RawMessage
		if err != nil || !isName || dec.Decode(&value) != nil {
			f.add(orBody(path), "cannot be read")
			return
		}
		if seen[name] {
			f.add(path+clip(name), "is there twice")
			continue
		}
		seen[name] = true
		fn(name, value)
	}
}

func orBody(path string) string {
	if path == "" {
		return "body"
	}
	return path[:len(path)-1] // without the dot that members are joined with
}

func (f *fieldErrors) value(path string, raw json.RawMessage, target any) {
	if string(raw) == "null" {
		return
	}
	switch target := target.(type) {
	case nested:
		*target.there = true
		f.object(path+".", raw, target.fields)
	case *map[string]string:
		*target = map[string]string{}
		f.members(path+".", raw, func(name string, value json.RawMessage) {
			f.text(path+"."+clip(name), value, func(s string) { (*target)[name] = s })
		})
	case *[]string:
		f.texts(path, raw, target)
	case *sandbox.Secret:
		f.text(path, raw, func(s string) { *target = sandbox.NewSecret(s) })
	default:
		if json.Unmarshal(raw, target) != nil {
			f.add(path, "use %s", wanted(target))
		}
	}
}

// text reads a string; package json would take null for "".
func (f *fieldErrors) text(path string, raw json.RawMessage, set func(string)) {
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		f.add(path, "use a string")
		return
	}
	set(*s)
}

func (f *fieldErrors) texts(path string, raw json.RawMessage, into *[]string) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		f.add(path, "use a list of strings")
		return
	}
	for i, item := range list {
		f.text(fmt.Sprintf("%s[%d]", path, i), item, func(s string) { *into = append(*into, s) })
	}
}

func wanted(target any) string {
	switch target.(type) {
	case *bool, **bool:
		return "true or false"
	case *int64:
		return "a whole number"
	case *float64:
		return "a number"
	}
	return "a string"
}

// clip keeps what a client sent from filling an answer.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}
