package figure_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/figure"
)

func TestQuantile(t *testing.T) {
	var ds []time.Duration
	for i := 100; i > 0; i-- {
		ds = append(ds, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := figure.Quantile(ds, q); got != want {
			t.Errorf("Quantile(1..100, %v) = %d, want %d", q, got, want)
		}
	}
	if got := figure.Quantile(nil, 0.5); got != 0 {
		t.Errorf("Quantile(nil) = %v, want 0", got)
	}
}

func TestPrint(t *testing.T) {
	p := figure.Pair{Ours: []time.Duration{3 * time.Millisecond}, Peer: []time.Duration{2 * time.Millisecond}}
	var b strings.Builder
	p.Print(&b, "exec", "os/exec")
	want := "FIGURE exec_p50 3 ms ratio=1.5 vs=os/exec\nFIGURE exec_p99 3 ms ratio=1.5 vs=os/exec\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func ExampleLine() {
	figure.Line(os.Stdout, "stdout", 3.2, "GiB/s", 1.04, "pipe")
	// Output: FIGURE stdout 3.2 GiB/s ratio=1.04 vs=pipe
}
