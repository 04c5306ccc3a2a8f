package claude_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

const resultLine = `{"type":"result","subtype":"success","is_error":false,"result":"done","num_turns":1,"total_cost_usd":0.5,"errors":[],"session_id":"6b510ccb-9b2e-4cd6-b1ff-6770472d4e44"}` + "\n"

// recording is a file with lines and a result behind them.
func recording(b *testing.B, lines []byte) string {
	b.Helper()
	file := filepath.Join(b.TempDir(), "lines.jsonl")
	if err := os.WriteFile(file, append(bytes.Clone(lines), resultLine...), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

// stream is a run whose CLI is cat, which writes a recording through a pipe of
// the kernel.
func stream(b *testing.B, file string) *claude.Stream {
	b.Helper()
	sb, err := sandbox.NewProvider(fakeProvider{kernelPipe: true, play: func(c *fakeCLI) {
		c.begin()
		cat := exec.Command("cat", file)
		cat.Stdout, _ = c.outW.(*os.File)
		if err := cat.Run(); err != nil {
			b.Error(err)
		}
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

// readAll ranges over a replayed run and decodes the content of every message.
// It gives how long that took from the first message to the result.
func readAll(b *testing.B, file string, messages int) time.Duration {
	var n int
	var start time.Time
	var took time.Duration
	for m, err := range stream(b, file).Messages() {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n == 1 {
			start = time.Now()
		}
		content(m)
		if _, ok := m.(*claude.ResultMessage); ok {
			took = time.Since(start)
		}
	}
	if n != messages {
		b.Fatalf("%d messages, want %d", n, messages)
	}
	return took
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

// typescript is the official TypeScript SDK, which make ts-sdk installs.
type typescript struct{ node, sdk, program string }

// newTypescript finds it, or skips.
func newTypescript(b *testing.B) *typescript {
	b.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		b.Skip("needs node to run the official TypeScript SDK beside")
	}
	sdk, err := filepath.Abs("../.tools/ts-sdk/node_modules/@anthropic-ai/claude-agent-sdk/sdk.mjs")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(sdk); err != nil {
		b.Skip("needs the official TypeScript SDK: make ts-sdk")
	}
	return &typescript{node: node, sdk: sdk, program: filepath.Join(b.TempDir(), "replay")}
}

// readAll is the function of that name on the other side.
func (ts *typescript) readAll(b *testing.B, file string, messages int) time.Duration {
	b.Helper()
	replay := fmt.Sprintf(`#!/bin/sh
# A CLI that answers the SDK's first request and then writes what was recorded.
read -r line
id=${line#*'"request_id":"'}
printf '{"type":"control_response","response":{"subtype":"success","request_id":"%%s","response":{"commands":[],"agents":[],"models":[],"account":{}}}}\n' "${id%%%%'"'*}"
read -r prompt
cat %q
cat >/dev/null
`, file)
	if err := os.WriteFile(ts.program, []byte(replay), 0o700); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), ts.node, "testdata/tssdk.mjs", ts.sdk, ts.program)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("the TypeScript SDK: %v", err)
	}
	var got struct {
		Messages int
		MS       float64
	}
	if err := json.Unmarshal(out, &got); err != nil || got.Messages != messages {
		b.Fatalf("the TypeScript SDK read %s, %v, want %d messages", out, err, messages)
	}
	return time.Duration(got.MS * float64(time.Millisecond))
}

// BenchmarkDecode reads the same recordings through a pipe with this package and
// with the official TypeScript SDK, in turns.
func BenchmarkDecode(b *testing.B) {
	ts := newTypescript(b)
	for _, set := range []struct {
		name  string
		lines []byte
	}{{"deltas", deltas()}, {"mixed", mixed()}} {
		var ours, theirs []time.Duration
		b.Run(set.name, func(b *testing.B) {
			file := recording(b, set.lines)
			b.SetBytes(int64(len(set.lines)))
			for b.Loop() {
				ours = append(ours, readAll(b, file, benchLines+1))
				theirs = append(theirs, ts.readAll(b, file, benchLines+1))
			}
		})
		if len(ours) > 0 {
			figure.Line(os.Stdout, "decode_"+set.name, rate(ours), "lines/s", rate(ours)/rate(theirs), "ts-sdk")
		}
	}
}

// BenchmarkLongLines is about lines of 70 MB: results of tools.
func BenchmarkLongLines(b *testing.B) {
	ts := newTypescript(b)
	const count, size = 4, 70 << 20
	line := `{"type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_1","type":"tool_result","content":"` +
		strings.Repeat(`some \"output\" of a tool\n`, size/27) + `"}]},"parent_tool_use_id":null,"session_id":"s"}` + "\n"
	file := recording(b, []byte(strings.Repeat(line, count)))
	var ours, theirs []time.Duration
	for b.Loop() {
		for range longRounds { // one takes longer than a benchmark's usual time
			ours = append(ours, readAll(b, file, count+1))
			theirs = append(theirs, ts.readAll(b, file, count+1))
		}
	}
	// The clock starts with the first message, when its line has been read.
	mb := float64(len(line)) * (count - 1) / 1e6
	figure.Line(os.Stdout, "decode_70mb", mb/figure.Quantile(ours, 0.5).Seconds(), "MB/s",
		figure.Quantile(theirs, 0.5).Seconds()/figure.Quantile(ours, 0.5).Seconds(), "ts-sdk")
}

// longRounds is how often the long lines are read, as one reading's time varies by
// a third with the machine's memory.
const longRounds = 5

func rate(took []time.Duration) float64 {
	return benchLines / figure.Quantile(took, 0.5).Seconds()
}

// BenchmarkDelta is about one delta, without a pipe.
func BenchmarkDelta(b *testing.B) {
	line, _, _ := bytes.Cut(deltas(), []byte("\n"))
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		m, err := claude.Decode(line)
		if e, ok := m.(*claude.StreamEvent); err != nil || !ok || e.Text == "" {
			b.Fatal(m, err)
		}
	}
}

// TestDeltaAllocations reads deltas as they come from a stream.
func TestDeltaAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	lines := deltas()
	st := query(t, nil, func(c *fakeCLI) {
		id, _ := c.begin()
		_, _ = c.outW.Write(lines)
		c.result(id, "")
		c.drain()
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	text := 0
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		text += content(m)
	}
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / benchLines
	if each > 2 || text == 0 {
		t.Errorf("%.2f allocations for a delta, want at most 2", each)
	}
	figure.Line(t.Output(), "delta_allocations", each, "allocations", each/2, "goal")
}

// BenchmarkLatency is the time from a write of the CLI to the body of the loop,
// beside that of a goroutine that reads the pipe and does nothing else.
func BenchmarkLatency(b *testing.B) {
	line, _, _ := bytes.Cut(deltas(), []byte("\n"))
	line = append(line, '\n')
	var ours, bare []time.Duration
	for b.Loop() {
		ours = append(ours, latencies(b, line)...)
		bare = append(bare, bareLatencies(b, line)...)
	}
	for name, q := range map[string]float64{"p50": 0.50, "p99": 0.99} {
		o, p := figure.Quantile(ours, q), figure.Quantile(bare, q)
		figure.Line(os.Stdout, "write_to_loop_"+name, float64(o)/1e3, "us", float64(o)/float64(p), "bare-pipe")
	}
}

const latencyLines = 2000

func latencies(b *testing.B, line []byte) (all []time.Duration) {
	written := make(chan time.Time, 1)
	next := make(chan struct{})
	sb, err := sandbox.NewProvider(fakeProvider{kernelPipe: true, play: func(c *fakeCLI) {
		id, _ := c.begin()
		for range latencyLines {
			written <- time.Now()
			_, _ = c.outW.Write(line)
			<-next
		}
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
	defer st.Close()
	for m, err := range st.Messages() {
		now := time.Now()
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := m.(*claude.StreamEvent); ok {
			all = append(all, now.Sub(<-written))
			next <- struct{}{}
		}
	}
	return all
}

func bareLatencies(b *testing.B, line []byte) (all []time.Duration) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	written := make(chan time.Time, 1)
	next := make(chan struct{})
	go func() {
		defer w.Close()
		for range latencyLines {
			written <- time.Now()
			_, _ = w.Write(line)
			<-next
		}
	}()
	in := bufio.NewReader(r)
	for range latencyLines {
		if _, err := in.ReadSlice('\n'); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(<-written))
		next <- struct{}{}
	}
	return all
}
