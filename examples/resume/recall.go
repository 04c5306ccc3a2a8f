package main

import (
	"fmt"
	"strings"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

// recalling is the stand-in for a model: it does what prompts say, as the other
// examples' does, and answers a question with what was said before. All it knows is
// what the CLI sends, so it can answer only where the CLI has the conversation.
func recalling() claudetest.Script {
	prompted := claudetest.Prompted()
	return func(w *claudetest.Reply, r *claudetest.Request) {
		if !strings.HasSuffix(strings.TrimSpace(r.Prompt()), "?") {
			prompted(w, r)
			return
		}
		said := earlier(r)
		if len(said) == 0 {
			w.Text("Nothing: this conversation begins with your question.\n")
			return
		}
		w.Text("In this conversation you said:\n")
		for _, prompt := range said {
			w.Text(fmt.Sprintf("- %q\n", prompt))
		}
	}
}

// earlier are the prompts before the last. Text that is not the user's own comes
// in angle brackets.
func earlier(r *claudetest.Request) (said []string) {
	for _, m := range r.Messages {
		if m.Role != "user" {
			continue
		}
		for _, b := range m.Content {
			if text := strings.TrimSpace(b.Text); text != "" && !strings.HasPrefix(text, "<") {
				said = append(said, text)
			}
		}
	}
	if n := len(said); n > 0 && said[n-1] == strings.TrimSpace(r.Prompt()) {
		said = said[:n-1]
	}
	return said
}
