// Package model picks what answers the prompts of the examples: the real model
// where there is a key for it, otherwise a scripted stand-in.
package model

import (
	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/claudetest"
)

// API is the model's API as a sandbox is to see it.
type API struct {
	Endpoint claude.Endpoint
	// Notice is what a person must know about it; empty for the real model.
	Notice string
}

const notice = "No ANTHROPIC_API_KEY: a scripted stand-in answers, not a model. " +
	`It does what "write FILE: TEXT", "make a file FILE" and "run: COMMAND" say.`

// Open picks the API by the environment: ANTHROPIC_API_KEY, or
// ANTHROPIC_AUTH_TOKEN for one that is sent as a bearer token, and
// ANTHROPIC_BASE_URL for another place than Anthropic's. The key stays in this
// process; see package broker.
func Open(getenv func(string) string) (*API, error) { return OpenOr(getenv, claudetest.Prompted()) }

// OpenOr is Open with another script for the stand-in.
func OpenOr(getenv func(string) string, script claudetest.Script) (*API, error) {
	key := broker.APIKey(getenv("ANTHROPIC_API_KEY"))
	if key.IsZero() {
		key = broker.BearerToken(getenv("ANTHROPIC_AUTH_TOKEN"))
	}
	if key.IsZero() {
		stand := claudetest.NewHandler(script, &claudetest.Options{Keep: -1})
		return &API{Endpoint: claude.Endpoint{Handler: stand}, Notice: notice}, nil
	}
	b, err := broker.New(&broker.Options{Key: key, Upstream: getenv("ANTHROPIC_BASE_URL")})
	if err != nil {
		return nil, err
	}
	return &API{Endpoint: claude.Endpoint{Handler: b}}, nil
}
