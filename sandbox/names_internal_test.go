package sandbox

import (
	"regexp"
	"testing"
)

// FuzzNames compares the checks written by hand with the regular expressions
// that say the same.
func FuzzNames(f *testing.F) {
	checks := map[string]struct {
		ours   func(string) bool
		theirs *regexp.Regexp
	}{
		"name":     {isName, regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)},
		"variable": {isVariable, regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)},
		"domain":   {isDomain, regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)},
	}
	for _, s := range []string{"", "a", "-", "a-", "*.a", "*.", "*.*.a", "a..b", "a.b-c.d_e", "A", "_", "1a", "a\n", "é", ".a", "a."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 253 {
			return // domains have a bound of their own
		}
		for name, c := range checks {
			if got, want := c.ours(s), c.theirs.MatchString(s); got != want {
				t.Errorf("%s(%q) = %v, want %v", name, s, got, want)
			}
		}
	})
}
