package sandboxhttp

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox"
)

// jsonFields are the names that clients know the fields of sandbox.Config by.
var jsonFields = map[string]string{
	"Name": "name", "Image": "image_base", "Image.Base": "image_base", "Image.Commands": "dockerfile_commands",
	"Image.Snapshot": "snapshot", "Env": "env", "Secrets": "env", "CPU": "cpu", "Memory": "memory_mb", "Pids": "pids",
	"Disk": "disk_mb", "Timeout": "timeout_seconds", "IdleTimeout": "idle_timeout_seconds", "Network": "network",
	"Network.Mode": "network.mode", "Network.Domains": "network.domains", "Network.CIDRs": "network.cidrs", "Tags": "tags",
}

// settingRE finds the field that an error which matches sandbox.ErrInvalid begins
// with: its texts are "Field value: what to do".
var settingRE = regexp.MustCompile(`^([A-Z][A-Za-z]*(?:\.[A-Z][A-Za-z]*)?)\b[: ]*`)

// fieldOf splits an error's text into the name that clients know its field by,
// "" where it names none of theirs, and the rest.
func fieldOf(text string) (field, detail string) {
	m := settingRE.FindStringSubmatch(text)
	if m == nil {
		return "", text
	}
	field = jsonFields[m[1]]
	if field == "" {
		return "", text
	}
	return field, strings.TrimPrefix(text, m[0])
}

// invalidProblem is an error that matches sandbox.ErrInvalid, field by field.
func invalidProblem(err error) *problem {
	p := newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are").because(err)
	for _, leaf := range leaves(err) {
		text := leaf.Error()
		if text == sandbox.ErrInvalid.Error() {
			continue
		}
		field, detail := fieldOf(text)
		if field == "" {
			field = "body"
		}
		p.Errors = append(p.Errors, fieldError{field, detail})
	}
	return p
}

// unsupportedProblem is an error that matches errors.ErrUnsupported.
func unsupportedProblem(err error) *problem {
	p := newProblem(http.StatusUnprocessableEntity, codeUnsupportedSetting, "the server's sandboxes do not have this setting").because(err)
	for _, leaf := range leaves(err) {
		var setting *sandbox.UnsupportedError
		if !errors.As(leaf, &setting) || jsonFields[setting.Setting] == "" {
			continue
		}
		detail := "is not supported"
		if setting.Reason != "" {
			detail += ": " + setting.Reason
		}
		p.Errors = append(p.Errors, fieldError{jsonFields[setting.Setting], detail})
	}
	return p
}

// leaves are the errors at the ends of the tree that err is the root of, and
// those that wrap a sentinel in words of their own.
func leaves(err error) []error {
	switch e := err.(type) { // it walks the tree itself
	case interface{ Unwrap() []error }:
		var all []error
		for _, inner := range e.Unwrap() {
			all = append(all, leaves(inner)...)
		}
		return all
	case *sandbox.Error:
		return leaves(e.Err)
	}
	if inner := errors.Unwrap(err); inner != nil && inner.Error() == err.Error() {
		return leaves(inner)
	}
	return []error{err}
}
