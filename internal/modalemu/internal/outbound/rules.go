package outbound

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

// Rule sets headers of requests to a domain.
type Rule struct {
	// Domain is a host, "*.example.com" for example.com and all below it, or
	// "*" for every host.
	Domain string
	// Headers take the place of all that the request has by these names.
	Headers map[string]string
}

// framing are the headers that say how a message goes on, or where: a rule that
// set one would break the connection, or send the others to somebody else.
var framing = []string{
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// Check reports what is wrong with a rule. The text has no value of a header.
func (r *Rule) Check() error {
	if r.Domain == "" {
		return errors.New("a rule needs a domain")
	}
	for name, value := range r.Headers {
		switch {
		case slices.Contains(framing, textproto.CanonicalMIMEHeaderKey(name)):
			return fmt.Errorf("header %q cannot be set: it belongs to the connection", name)
		case !isToken(name):
			return fmt.Errorf("%q is no name of a header", name)
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			return fmt.Errorf("the value of header %q has control characters", name)
		}
	}
	return nil
}

// isToken reports whether s is one of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

// matches reports whether the rule is about a host, which is in lower case.
func (r *Rule) matches(host string) bool {
	domain := strings.ToLower(r.Domain)
	if domain == "*" || domain == host {
		return true
	}
	apex, ok := strings.CutPrefix(domain, "*.")
	return ok && (host == apex || strings.HasSuffix(host, "."+apex))
}

// Expand gives a template with "$KEY" replaced by the value of that key and "$$"
// by "$". A "$" before anything else stands for itself. A key that has no value
// is an error.
func Expand(template string, values map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(template, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		n := keyLength(after)
		switch {
		case n > 0:
			value, ok := values[after[:n]]
			if !ok {
				return "", fmt.Errorf("the secret has no key %q", after[:n])
			}
			b.WriteString(value)
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			n = 1
		default:
			b.WriteByte('$')
		}
		template = after[n:]
	}
}

// keyLength is how much of s, from its beginning, is a key.
func keyLength(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}
