package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestUSD(t *testing.T) {
	for amount, want := range map[float64]string{
		0: "$0.00", 2.5: "$2.50", 0.00014: "$0.00014", -1.005: "-$1.005", 1e-9: "$0.000000001", 1234567: "$1234567.00", -0.25: "-$0.25",
	} {
		if got := Dollars(amount).String(); got != want {
			t.Errorf("%v is %s, want %s", amount, got, want)
		}
	}
	if Dollars(math.NaN()) != 0 || Dollars(math.Inf(1)) != math.MaxInt64 || Dollars(math.Inf(-1)) != math.MinInt64 || Dollars(0.1).Float() != 0.1 {
		t.Error("odd amounts")
	}
	_ = Dollars(math.Inf(-1)).String()
}

func TestPricesOfModels(t *testing.T) {
	p, err := newPrices(map[string]Price{"house-model": {Input: 1}, "claude-opus-4-1": {Input: 7}}, Price{})
	if err != nil {
		t.Fatal(err)
	}
	for model, want := range map[string]float64{
		"claude-opus-4-5": 5, "claude-opus-4-5-20251101": 5, "claude-opus-4-20250514": 15, "claude-opus-4-0": 15, "claude-opus-4-1-20250805": 7,
		"us.anthropic.claude-opus-4-5-20251101-v1:0": 5, "anthropic/claude-sonnet-4-5": 3, "claude-sonnet-4@20250514": 3,
		"claude-3-5-haiku-latest": 0.8, "claude-haiku-4-5@20251001": 1, "claude-opus-5-5[1m]": 4, "Claude-Opus-5": 5, "house-model": 1,
		"claude-haiku-5-5": 0.1,
	} {
		if got, known := p.of(model); !known || got.Input != want {
			t.Errorf("%s costs %v (known: %v), want %v", model, got.Input, known, want)
		}
	}
	for _, model := range []string{"", "gpt", "claude-opus-4-9", "claude-opus-5-5-mini", "claude-opus-6", "myclaude-opus-5", "claude-"} {
		if got, known := p.of(model); known || got.Input != 15 || got.Output != 75 {
			t.Errorf("%q is known, or cheap: %+v", model, got)
		}
	}
	for _, bad := range []Price{{Input: -1}, {Output: math.NaN()}, {Fast: &Price{CacheRead: math.Inf(1)}}} {
		if _, err := newPrices(map[string]Price{"x": bad}, Price{}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
		if _, err := newPrices(nil, bad); err == nil {
			t.Errorf("%+v was taken for unknown models", bad)
		}
	}
}

// Costs as Claude Code 2.1.328 works them out for the same usage.
func TestCosts(t *testing.T) {
	p, err := newPrices(nil, Price{})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		model string
		usage Usage
		rates rates
		want  string
	}{
		"plain":       {"claude-opus-5-5", Usage{Input: 10, Output: 5}, rates{}, "$0.00014"},
		"cached":      {"claude-sonnet-4-6", Usage{Input: 1, CacheWrite5m: 1000, CacheWrite1h: 1000, CacheRead: 10_000}, rates{}, "$0.012753"},
		"search":      {"claude-opus-5", Usage{WebSearches: 2}, rates{}, "$0.02"},
		"US only":     {"claude-opus-5", Usage{Input: 1_000_000, WebSearches: 1}, rates{us: true}, "$5.51"},
		"fast":        {"claude-opus-4-6", Usage{Input: 100, Output: 10}, rates{fast: true}, "$0.0045"},
		"no fast one": {"claude-sonnet-5", Usage{Input: 100}, rates{fast: true}, "$0.0002"},
		"short":       {"claude-haiku-5-5", Usage{Input: 50_000, CacheRead: 50_000, Output: 1000}, rates{}, "$0.006"},
		"long":        {"claude-haiku-5-5", Usage{Input: 50_000, CacheRead: 50_001, Output: 1000}, rates{}, "$0.03000005"},
		"unknown":     {"gpt", Usage{Input: 1_000_000}, rates{}, "$15.00"},
	} {
		price, _ := p.of(test.model)
		if got := price.cost(test.usage, test.rates); got.String() != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// scannedEvents reads a stream that comes in pieces of a size.
func scannedEvents(data []byte, size int) (s eventScanner, events int) {
	for rest := data; len(rest) > 0; {
		piece := rest[:min(size, len(rest))]
		rest = rest[len(piece):]
		for len(piece) > 0 {
			n, ended := s.next(piece)
			piece = piece[n:]
			if ended {
				events++
			}
		}
	}
	return s, events
}

func FuzzEvents(f *testing.F) {
	start := `{"type":"message_start","message":{"model":"m","usage":{"input_tokens":5,"output_tokens":1,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":4}}}}`
	f.Add([]byte("event: message_start\ndata: " + start + "\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n"))
	f.Add([]byte("data: " + start + "\r\n\r\ndata: {\"type\":\"message_stop\"}\n\n: comment\nevent: ping\ndata: {}\n\n"))
	f.Add([]byte("event: content_block_delta\ndata: " + strings.Repeat("x", 300) + "\n\nevent:error\ndata:{\"type\":\ndata:\"error\"}\n\n\n"))
	f.Add([]byte("data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":-1e300,\"input_tokens\":1e300,\"speed\":\"fast\",\"inference_geo\":\"us\"}}\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, events := scannedEvents(data, max(1, len(data)))
		for _, size := range []int{1, 3, 64} {
			pieces, n := scannedEvents(data, size)
			if n != events || pieces.statement() != whole.statement() || pieces.over != whole.over || pieces.err != whole.err {
				t.Fatalf("in pieces of %d: %d events, %+v; at once: %d, %+v", size, n, pieces.statement(), events, whole.statement())
			}
		}
		wantSane(t, whole.statement().usage)
		if cap(whole.line)+cap(whole.data) > 4*maxKept+len(data) && len(data) < maxKept {
			t.Errorf("it keeps %d bytes", cap(whole.line)+cap(whole.data))
		}
	})
}

func wantSane(t *testing.T, u Usage) {
	t.Helper()
	for _, n := range []int64{u.Input, u.Output, u.CacheWrite5m, u.CacheWrite1h, u.CacheRead, u.WebSearches} {
		if n < 0 || n > 2*maxCount {
			t.Fatalf("used %+v", u)
		}
	}
	if cost := (Price{Input: 100, Output: 100, CacheWrite5m: 100, CacheWrite1h: 100, CacheRead: 100}).cost(u, rates{us: true}); cost < 0 {
		t.Fatalf("it costs %s", cost)
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"model":"m","usage":{"input_tokens":3,"output_tokens":4}}`))
	f.Add([]byte(` { "content" : [{"usage":{"output_tokens":1}}, "\"model\":", {}] , "us\u0061ge" : {"output_tokens":2} , "model" : "a\"}b" } `))
	f.Add([]byte(`{"usage":1,"usage":{"output_tokens":5,"input_tokens":"x"},"model":null}`))
	f.Add([]byte(`[{"usage":{"output_tokens":1}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole memberScanner
		whole.write(data)
		for _, size := range []int{1, 3} {
			var s memberScanner
			for rest := data; len(rest) > 0; {
				piece := rest[:min(size, len(rest))]
				rest = rest[len(piece):]
				s.write(piece)
			}
			if s.statement() != whole.statement() {
				t.Fatalf("in pieces of %d: %+v; at once: %+v", size, s.statement(), whole.statement())
			}
		}
		wantSane(t, whole.statement().usage)
		var members map[string]json.RawMessage
		if len(data) > maxKept || json.Unmarshal(data, &members) != nil || members == nil {
			return
		}
		for name, got := range map[string][]byte{"model": whole.model, "usage": whole.usage} {
			if want := bytes.TrimSpace(members[name]); !bytes.Equal(got, want) {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

func TestWhatARequestAsksFor(t *testing.T) {
	picture := strings.Repeat("A", 6400)
	var s bodyScanner
	body := fmt.Sprintf(`{"max_tokens":32000,"model":"claude-x","stream":true,"metadata":{"model":"y","stream":false},"messages":[{"content":[{"type":"image","source":{"type":"base64","data":%q}}]}]}`, picture)
	for i := range len(body) {
		if bad := s.write([]byte(body[i : i+1])); bad != nil {
			t.Fatal(bad)
		}
	}
	want := asked{model: "claude-x", maxTokens: 32000, stream: true, tokens: int64(len(body)-6400)/4 + 100 + 1}
	if got := s.asked(); s.end() != nil || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
