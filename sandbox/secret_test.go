package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const hidden = "hunter2"

// holder has secrets where fmt cannot call methods: in fields not exported.
type holder struct {
	secret sandbox.Secret
	config sandbox.Config
	ptr    *sandbox.Config
	any    any
}

func TestSecretIsNotSeen(t *testing.T) {
	s := sandbox.NewSecret(hidden)
	config := sandbox.Config{Secrets: map[string]sandbox.Secret{"TOKEN": s}}
	values := []any{
		s, &s, []sandbox.Secret{s}, map[string]sandbox.Secret{"k": s}, struct{ S sandbox.Secret }{s}, config, &config,
		holder{s, config, &config, s}, &holder{s, config, &config, s}, driver.Secrets{"TOKEN=" + hidden},
		driver.Config{Secrets: driver.Secrets{"TOKEN=" + hidden}}, &driver.Config{Secrets: driver.Secrets{"TOKEN=" + hidden}},
		fmt.Errorf("token %v", s), s.String(),
	}
	for _, v := range values {
		_, raw := v.(driver.Config)
		_, pointer := v.(*driver.Config)
		raw = raw || pointer // a driver has to be able to encode it
		for _, verb := range "vsqxXdptTbcoUeEfFgG" {
			if raw && verb == 'p' {
				continue // fmt asks no methods for a verb that is wrong for a struct
			}
			for _, flags := range []string{"", "+", "#", "-20", "020", " ", ".3"} {
				format := "%" + flags + string(verb)
				show(t, fmt.Sprintf("%s of %T", format, v), fmt.Sprintf(format, v))
			}
		}
		show(t, fmt.Sprintf("Sprint of %T", v), fmt.Sprint(v))
		for _, handler := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			if raw {
				continue
			}
			var log bytes.Buffer
			slog.New(handler(&log)).Info("m", "v", v)
			show(t, fmt.Sprintf("slog of %T", v), log.String())
		}
	}
	for _, v := range values[:9] {
		text, err := json.Marshal(v)
		if err != nil {
			t.Errorf("JSON of %T: %v", v, err)
		}
		show(t, fmt.Sprintf("JSON of %T", v), string(text))
	}
}

func show(t *testing.T, how, text string) {
	t.Helper()
	for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprint([]byte(hidden)), hidden[:3]} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
}

func TestSecretValue(t *testing.T) {
	var zero sandbox.Secret
	s := sandbox.NewSecret(hidden)
	if zero.Reveal() != "" || s.Reveal() != hidden {
		t.Errorf("Reveal: %q, %q", zero.Reveal(), s.Reveal())
	}
	if !s.Equal(sandbox.NewSecret(hidden)) || s.Equal(zero) || !zero.Equal(sandbox.NewSecret("")) {
		t.Error("Equal is wrong")
	}
	var c sandbox.Config
	if err := json.Unmarshal([]byte(`{"Secrets":{"TOKEN":"`+hidden+`"}}`), &c); err != nil || c.Secrets["TOKEN"].Reveal() != hidden {
		t.Errorf("from JSON: %q, %v", c.Secrets["TOKEN"].Reveal(), err)
	}
}
