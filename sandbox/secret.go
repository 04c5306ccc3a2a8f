package sandbox

import (
	"fmt"
	"log/slog"
)

// Secret is a value that must not be seen: however it is formatted, encoded or
// logged it shows as "[redacted]". Reveal gives the value.
type Secret string

const redacted = "[redacted]"

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText encodes as "[redacted]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue logs as "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
