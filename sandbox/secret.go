package sandbox

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Secret is a value that must not be seen: however it is formatted, encoded or
// logged, also inside another value, it shows as "[redacted]" or as an address.
// NewSecret makes one and Reveal gives its value; the zero Secret is empty.
type Secret struct {
	// A function, because package fmt and its like print the fields of
	// values that are not exported without asking their methods.
	reveal func() string
}

const redacted = "[redacted]"

// NewSecret makes a Secret of value.
func NewSecret(value string) Secret { return Secret{reveal: func() string { return value }} }

// Reveal returns the value itself.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Equal reports whether both have the same value.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText encodes as "[redacted]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText takes text as the value, so that a Secret can be part of a
// request or a configuration file.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// LogValue logs as "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
