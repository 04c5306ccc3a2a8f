package outbound_test

import (
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/outbound"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"KEY": "v", "KEY_2": "$KEY", "_": "u", "EMPTY": ""}
	for template, want := range map[string]string{
		"": "", "plain": "plain", "$KEY": "v", "Bearer $KEY!": "Bearer v!", "$KEY_2": "$KEY", "$_": "u", "a$EMPTY$KEY": "av",
		"$$KEY": "$KEY", "$$$KEY": "$v", "$5": "$5", "$": "$", "$$": "$", "$-$KEY": "$-v", "$ $": "$ $",
	} {
		if got, err := outbound.Expand(template, values); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", template, got, err, want)
		}
	}
	if got, err := outbound.Expand("$KEY $NONE", values); err == nil || got != "" || !strings.Contains(err.Error(), `"NONE"`) {
		t.Errorf("a key that is not there: %q, %v", got, err)
	}
}

// FuzzExpand: what is escaped comes out as it was, and a key is looked up whole.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$KEY", "a$1", "$_9z-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := outbound.Expand(strings.ReplaceAll(s, "$", "$$"), nil); err != nil || got != s {
			t.Errorf("%q: %q, %v", s, got, err)
		}
		if got, err := outbound.Expand(s, nil); err == nil && strings.Count(got, "$") > strings.Count(s, "$") {
			t.Errorf("%q: %q", s, got)
		}
		if got, err := outbound.Expand("$KEY-"+strings.ReplaceAll(s, "$", ""), map[string]string{"KEY": "v"}); err != nil || got != "v-"+strings.ReplaceAll(s, "$", "") {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	})
}

func TestCheck(t *testing.T) {
	for name, bad := range map[string]outbound.Rule{
		"no domain":  {Headers: map[string]string{"A": "b"}},
		"a line":     {Domain: "*", Headers: map[string]string{"A": "secret\r\nB: c"}},
		"no name":    {Domain: "*", Headers: map[string]string{"": "b"}},
		"two names":  {Domain: "*", Headers: map[string]string{"A B": "b"}},
		"host":       {Domain: "*", Headers: map[string]string{"hOST": "b"}},
		"length":     {Domain: "*", Headers: map[string]string{"content-length": "1"}},
		"connection": {Domain: "*", Headers: map[string]string{"Connection": "close"}},
	} {
		if err := bad.Check(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := outbound.Rule{Domain: "*.example.com", Headers: map[string]string{"authorization": "Bearer \u00fc\tx", "x-a!#$%&'*+.^_`|~": ""}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}
