package claude_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox"
)

const benchLines = 100_000

// deltas are lines as --include-partial-messages gives them, about 300 bytes each.
func deltas() []byte {
	var b bytes.Buffer
	for i := range benchLines {
		fmt.Fprintf(&b, `{"type":"stream_event","event":{"delta":{"text":"word %d ","type":"text_delta"},"index":0,"type":"content_block_delta"},`+
			`"session_id":"6b510ccb-9b2e-4cd6-b1ff-6770472d4e44","parent_tool_use_id":null,"uuid":"%08d-7b20-482f-99a8-6ac7de8a69de","api_message_id":"msg_1b5596d31ac436d0af70c07c"}`+"\n", i, i)
	}
	return b.Bytes()
}

// mixed are deltas with whole messages, tools and their results between them,
// about 410 bytes each.
func mixed() []byte {
	const tail = `"parent_tool_use_id":null,"session_id":"6b510ccb-9b2e-4cd6-b1ff-6770472d4e44","uuid":"%08d-2695-4815-8a31-c6ebd3e97ae9","timestamp":"2026-11-23T15:36:07.126Z"}` + "\n"
	const usage = `"usage":{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}`
	body := strings.Repeat(`some \"output\" of a tool\n`, 12)
	all := deltas()
	var b bytes.Buffer
	for i := range benchLines {
		end := bytes.IndexByte(all, '\n') + 1
		switch i % 6 {
		case 0:
			fmt.Fprintf(&b, `{"type":"assistant","message":{"content":[{"text":"Hello you %d","type":"text"}],"id":"msg_1b5596d31ac436d0af70c07c","model":"claude-opus-5-5","role":"assistant","stop_reason":null,`+usage+`},`+tail, i, i)
		case 1:
			fmt.Fprintf(&b, `{"type":"assistant","message":{"content":[{"id":"toolu_%d","input":{"command":"go test ./...","description":"test"},"name":"Bash","type":"tool_use"}],"id":"msg_2","model":"claude-opus-5-5","role":"assistant",`+usage+`},`+tail, i, i)
		case 2:
			fmt.Fprintf(&b, `{"type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_%d","type":"tool_result","content":"%s","is_error":false}]},`+tail, i, body, i)
		default:
			b.Write(all[:end])
		}
		all = all[end:]
	}
	return b.Bytes()
}

// stream is a run whose CLI writes these lines through a pipe of the kernel.
func stream(b *testing.B, lines []byte) *claude.Stream {
	b.Helper()
	sb, err := sandbox.NewProvider(fakeProvider{kernelPipe: true, play: func(c *fakeCLI) {
		id, _ := c.begin()
		_, _ = c.outW.Write(lines)
		c.result(id, "")
		c.drain()
	}}).Create(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	st, err := claude.Query(b.Context(), sb, "x", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	return st
}

// envelopes reads messages and decodes nothing else: what passes them on needs
// no more.
func envelopes(b *testing.B, lines []byte) {
	n := 0
	for m, err := range stream(b, lines).Messages() {
		if err != nil || m.Type() == "" {
			b.Fatal(err)
		}
		n++
	}
	if n != benchLines+1 {
		b.Fatalf("%d messages", n)
	}
}

// decoded reads messages and decodes the content of every one.
func decoded(b *testing.B, lines []byte) {
	for m, err := range stream(b, lines).Messages() {
		if err != nil {
			b.Fatal(err)
		}
		content(m)
	}
}

func content(m claude.Message) int {
	switch m := m.(type) {
	case *claude.StreamEvent:
		return len(m.Text)
	case *claude.AssistantMessage:
		return len(m.Content())
	case *claude.UserMessage:
		return len(m.Content())
	}
	return 0
}

// twoPasses is how most clients do it: a pipe, a line, encoding/json for the
// type, and again for what the type calls for.
func twoPasses(b *testing.B, lines []byte) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	go func() { _, _ = w.Write(lines); _ = w.Close() }()
	in := bufio.NewReaderSize(r, 64<<10)
	n := 0
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		if err := decodeTwice(line); err != nil {
			b.Fatal(err)
		}
		n++
	}
	if n != benchLines {
		b.Fatalf("%d lines", n)
	}
}

func decodeTwice(line []byte) error {
	var head struct {
		Type    string `json:"type"`
		Subtype string `json:"subtype"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return err
	}
	type envelope struct {
		SessionID       string `json:"session_id"`
		ParentToolUseID string `json:"parent_tool_use_id"`
		UUID            string `json:"uuid"`
	}
	switch head.Type {
	case "stream_event":
		var v struct {
			envelope
			Event map[string]any `json:"event"`
		}
		return json.Unmarshal(line, &v)
	default:
		var v struct {
			envelope
			Message struct {
				ID      string `json:"id"`
				Model   string `json:"model"`
				Content []struct {
					Type      string          `json:"type"`
					Text      string          `json:"text"`
					ID        string          `json:"id"`
					Name      string          `json:"name"`
					Input     json.RawMessage `json:"input"`
					ToolUseID string          `json:"tool_use_id"`
					Content   json.RawMessage `json:"content"`
				} `json:"content"`
				Usage struct {
					Input  int `json:"input_tokens"`
					Output int `json:"output_tokens"`
				} `json:"usage"`
			} `json:"message"`
		}
		return json.Unmarshal(line, &v)
	}
}

// BenchmarkMessages: 100,000 lines through a pipe, against encoding/json.
func BenchmarkMessages(b *testing.B) {
	for _, set := range []struct {
		name  string
		lines []byte
	}{{"deltas", deltas()}, {"mixed", mixed()}} {
		var lazy, full figure.Pair
		b.Run(set.name, func(b *testing.B) {
			b.SetBytes(int64(len(set.lines)))
			for b.Loop() {
				lazy.Measure(func() { envelopes(b, set.lines) }, func() { twoPasses(b, set.lines) })
				full.Measure(func() { decoded(b, set.lines) }, func() {})
			}
		})
		peer := rate(lazy.Peer)
		figure.Line(os.Stdout, "claude_messages_"+set.name, rate(lazy.Ours), "lines/s", rate(lazy.Ours)/peer, "encoding/json-two-passes")
		figure.Line(os.Stdout, "claude_messages_decoded_"+set.name, rate(full.Ours), "lines/s", rate(full.Ours)/peer, "encoding/json-two-passes")
	}
}

func rate(took []time.Duration) float64 {
	return benchLines / figure.Quantile(took, 0.5).Seconds()
}
