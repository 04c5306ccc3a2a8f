// Package figure prints what benchmarks measured, side by side with a floor or
// a peer measured in the same run, in the one form that make bench gathers:
//
//	FIGURE name value unit ratio=X vs=WHAT
package figure

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Pair holds durations of ours and of what they are compared with. The zero
// value is empty. It is not safe for concurrent use.
type Pair struct {
	Ours, Peer []time.Duration
}

// Measure runs ours and peer once each and keeps how long each took. Calling
// it in turns spreads the machine's moods over both.
func (p *Pair) Measure(ours, peer func()) {
	p.Ours = append(p.Ours, took(ours))
	p.Peer = append(p.Peer, took(peer))
}

func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

// Print writes the medians and 99th percentiles, in milliseconds.
func (p *Pair) Print(w io.Writer, name, vs string) {
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.50}, {"p99", 0.99}} {
		ours, peer := Quantile(p.Ours, q.at), Quantile(p.Peer, q.at)
		Line(w, name+"_"+q.name, ms(ours), "ms", ms(ours)/ms(peer), vs)
	}
}

// Line writes one figure.
func Line(w io.Writer, name string, value float64, unit string, ratio float64, vs string) {
	fmt.Fprintf(w, "FIGURE %s %.4g %s ratio=%.3g vs=%s\n", name, value, unit, ratio, vs)
}

// Quantile returns the smallest duration that a share q of them does not
// exceed; 0 where there is none.
func Quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
