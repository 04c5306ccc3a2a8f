package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/broker"
)

const theKey = "sk-ant-real-0123456789abcdef"

func TestKeyShowsItselfToNobody(t *testing.T) {
	type holder struct {
		Key    broker.Key
		hidden broker.Key
	}
	var out bytes.Buffer
	for _, key := range []broker.Key{broker.APIKey(theKey), broker.BearerToken(theKey)} {
		h := holder{key, key}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
			fmt.Fprintf(&out, verb+verb+verb+"\n", key, h, &h)
			fmt.Fprintf(&out, verb, []any{key, map[string]broker.Key{"k": key}, h.hidden})
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "key", key, "holder", h)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "key", key, "holder", h)
		encoded, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(encoded)
	}
	for _, part := range []string{theKey, "real-0123", fmt.Sprintf("%x", theKey), fmt.Sprintf("%X", theKey)} {
		if strings.Contains(out.String(), part) {
			t.Errorf("%q is in the output:\n%s", part, out.String())
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("it does not say that something was left out")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "")
	if _, err := broker.New(nil); !errors.Is(err, broker.ErrNoKey) {
		t.Errorf("without a key: %v, want ErrNoKey", err)
	}
	if _, err := broker.New(&broker.Options{Key: broker.APIKey("two\nlines-" + theKey)}); err == nil || strings.Contains(err.Error(), theKey) {
		t.Errorf("a key of two lines: %v", err)
	}
	for _, upstream := range []string{"ftp://x", "x.example", "https://u:pass@x", "https://", "https://x?y", "https://x#y", "https://x y"} {
		_, err := broker.New(&broker.Options{Key: broker.APIKey(theKey), Upstream: upstream})
		if err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("upstream %s: %v, want an error without the password", upstream, err)
		}
	}
	t.Setenv("ANTHROPIC_API_KEY", theKey)
	if _, err := broker.New(nil); err != nil {
		t.Errorf("with the environment's key: %v", err)
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey)})
	if err != nil {
		t.Fatal(err)
	}
	token := b.NewToken(nil)
	held := struct{ t *broker.Token }{token}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		if s := fmt.Sprintf(verb, held); strings.Contains(s, token.Value()) {
			t.Errorf("%s prints %s", verb, s)
		}
	}
	if s := fmt.Sprintf("%v %s %#v %+v", token, token, token, token); strings.Contains(s, token.Value()) || !strings.Contains(s, token.ID()) {
		t.Errorf("printed %s", s)
	}
	if other := b.NewToken(nil); other.Value() == token.Value() || len(token.Value()) < 43 {
		t.Errorf("%s and %s", token.Value(), other.Value())
	}
}
