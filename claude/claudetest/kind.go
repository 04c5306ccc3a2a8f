package claudetest

import "strings"

// Kind says what a request is for. It is read off the request alone.
type Kind int

const (
	// Main is a turn of the conversation. Everything that does not come from
	// the CLI and asks for a message is Main as well.
	Main Kind = iota
	// Subagent is a turn of an agent that the conversation started with the
	// CLI's Agent tool. The CLI marks them with an X-Claude-Code-Agent-Id header.
	Subagent
	// Side is a question that the CLI asks for itself: a title, a summary for
	// /compact, a page to be condensed for WebFetch, a side question.
	Side
	// CountTokens is a request to /v1/messages/count_tokens.
	CountTokens
	// Probe is everything else: /v1/models, /api/hello, and paths that do not exist.
	Probe
)

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	switch k {
	case Main:
		return "main"
	case Subagent:
		return "subagent"
	case Side:
		return "side"
	case CountTokens:
		return "count_tokens"
	default:
		return "probe"
	}
}

// kindOf tells the requests of the CLI apart, as measured with 2.1.328. A turn
// offers tools or, with the tools switched off, still states the environment;
// the CLI's own questions do neither. /compact and side questions repeat the
// turn's tools, so only their words give them away.
func kindOf(r *Request) Kind {
	switch {
	case r.Header.Get("X-Claude-Code-Agent-Id") != "" || strings.Contains(r.System, "cc_is_subagent=true"):
		return Subagent
	case !strings.HasPrefix(r.Header.Get("User-Agent"), "claude-cli/"):
		return Main
	case r.MaxTokens == 1:
		return Side
	case len(r.Tools) == 0 && r.WorkingDir() == "":
		return Side
	case asksForSummary(r) || asksAside(r):
		return Side
	default:
		return Main
	}
}

func asksForSummary(r *Request) bool {
	return strings.Contains(lastUserText(r), "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.")
}

func asksAside(r *Request) bool {
	return strings.HasPrefix(lastUserText(r), "<system-reminder>This is a side question from the user")
}

// lastUserText returns the last user message as the CLI sent it, additions included.
func lastUserText(r *Request) string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role == "user" {
			return joinText(r.Messages[i].Content)
		}
	}
	return ""
}
