package broker_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/internal/figure"
)

// plainProxy is what a broker is compared with: it passes on and looks at nothing.
func plainProxy(b *testing.B, upstream string, transport http.RoundTripper) http.Handler {
	b.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	}
}

// sides are a broker and a plain proxy before one upstream, each with a client.
type sides struct {
	broker, plain func(body string) time.Duration
}

func newSides(b *testing.B, upstream http.HandlerFunc) sides {
	b.Helper()
	up := httptest.NewServer(upstream)
	b.Cleanup(up.Close)
	transport := &http.Transport{DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}
	b.Cleanup(transport.CloseIdleConnections)
	br, err := broker.New(&broker.Options{Upstream: up.URL, Key: broker.APIKey(theKey), Transport: transport, Observe: func(broker.Event) {}})
	if err != nil {
		b.Fatal(err)
	}
	account := broker.NewAccount("acme", &broker.AccountOptions{Limits: broker.Limits{Cost: 1 << 60, Tokens: 1 << 60, RequestsPerSecond: 1e9}})
	token := br.NewToken(&broker.TokenOptions{Account: account})
	side := func(h http.Handler) func(string) time.Duration {
		front := httptest.NewServer(h)
		b.Cleanup(front.Close)
		return func(body string) time.Duration {
			for range 10 { // the plain proxy now and then closes a connection that it reads from
				if took, err := ask(front, token.Value(), body); err == nil {
					return took
				}
			}
			b.Fatal("no answer in ten tries")
			return 0
		}
	}
	return sides{side(br), side(plainProxy(b, up.URL, transport))}
}

// ask makes a request and says how long it took to the answer's last byte.
func ask(front *httptest.Server, token, body string) (time.Duration, error) {
	r, err := http.NewRequest(http.MethodPost, front.URL+"/v1/messages?beta=true", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Api-Key", token)
	start := time.Now()
	resp, err := front.Client().Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return time.Since(start), err
}

// BenchmarkRequest is a request of the CLI's size with a short answer: what the
// broker adds to the time until the answer is there.
func BenchmarkRequest(b *testing.B) {
	s := newSides(b, opusStream)
	body := strings.Replace(opusRequest, `"hi"`, `"`+strings.Repeat("some words of a prompt ", 4000)+`"`, 1) // 92 kB
	var ours, plain []time.Duration
	for b.Loop() {
		ours = append(ours, s.broker(body))
		plain = append(plain, s.plain(body))
	}
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		o, p := figure.Quantile(ours, q.at), figure.Quantile(plain, q.at)
		figure.Line(os.Stdout, "broker_request_"+q.name, float64(o)/float64(time.Millisecond), "ms", float64(o)/float64(p), "reverseproxy")
	}
}

// BenchmarkStream is a long answer that comes as fast as it can, event by event.
func BenchmarkStream(b *testing.B) {
	const deltas = 20_000
	var stream bytes.Buffer
	fmt.Fprintf(&stream, "event: message_start\ndata: %s\n\n", startEvent)
	for range deltas {
		fmt.Fprintf(&stream, "event: content_block_delta\ndata: %s\n\n", deltaEvent)
	}
	fmt.Fprintf(&stream, "event: message_delta\ndata: %s\n\nevent: message_stop\ndata: %s\n\n", endEvent, stopEvent)
	s := newSides(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(stream.Bytes())
	})
	var ours, plain time.Duration
	runs := 0
	for b.Loop() {
		ours += s.broker(opusRequest)
		plain += s.plain(opusRequest)
		runs++
	}
	events := float64(runs * deltas)
	figure.Line(os.Stdout, "broker_stream", events/ours.Seconds()/1000, "k events/s", plain.Seconds()/ours.Seconds(), "reverseproxy")
}
