package modalbox_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"testing"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox"
)

// The benchmarks compare the driver with Modal's client used directly, on the
// same sandbox of the same emulator.

type pair struct {
	ours *sandbox.Sandbox
	raw  *modal.Sandbox
}

func benchPair(b *testing.B) pair {
	b.Helper()
	client := newClient(b, nil)
	sb, err := open(b, client).Create(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = sb.Terminate(context.Background())
		_ = sb.Close()
	})
	raw, err := client.Sandboxes.FromID(b.Context(), sb.ID(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = raw.Detach() })
	return pair{sb, raw}
}

// exec runs a command with the client alone, to the end, its output included.
func (p pair) exec(b *testing.B, w io.Writer, stdin []byte, args ...string) {
	cp, err := p.raw.Exec(b.Context(), args, nil)
	if err != nil {
		b.Fatal(err)
	}
	if stdin != nil {
		go func() {
			for rest := stdin; len(rest) > 0; {
				n := min(len(rest), 256<<10)
				_, _ = cp.Stdin.Write(rest[:n])
				rest = rest[n:]
			}
			_ = cp.Stdin.Close()
		}()
	}
	if _, err := io.Copy(w, cp.Stdout); err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, cp.Stderr); err != nil {
		b.Fatal(err)
	}
	code, err := cp.Wait(b.Context(), nil)
	if err != nil || code != 0 {
		b.Fatal(code, err)
	}
}

// run is the same through the driver.
func (p pair) run(b *testing.B, w io.Writer, stdin []byte, args ...string) {
	cmd := p.ours.Command(b.Context(), args[0], args[1:]...)
	cmd.Stdout = w
	if stdin != nil {
		cmd.Stdin = onlyReader{bytes.NewReader(stdin)}
	}
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
}

// onlyReader and onlyWriter hide what io.Copy would use on one side only.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// BenchmarkExecTrue: a command that does nothing, run to its end.
func BenchmarkExecTrue(b *testing.B) {
	p := benchPair(b)
	var durations figure.Pair
	for b.Loop() {
		durations.Measure(
			func() { p.run(b, onlyWriter{io.Discard}, nil, "/bin/true") },
			func() { p.exec(b, onlyWriter{io.Discard}, nil, "/bin/true") })
	}
	durations.Print(os.Stdout, "modalbox_exec_true", "modal-client")
}

// BenchmarkExecMarked: the same beside the client running the runner, which is
// what marking a command costs whoever does it.
func BenchmarkExecMarked(b *testing.B) {
	p := benchPair(b)
	marked := []string{"/tmp/.vivarium-run", "/", "i", strconv.Itoa(1 << 52), "/none", "/none", "/bin/true"}
	var durations figure.Pair
	for b.Loop() {
		durations.Measure(
			func() { p.run(b, onlyWriter{io.Discard}, nil, "/bin/true") },
			func() { p.exec(b, onlyWriter{io.Discard}, nil, marked...) })
	}
	durations.Print(os.Stdout, "modalbox_exec_marked", "modal-client-and-runner")
}

const benchSize = 64 << 20

// BenchmarkStdout: 64 MiB from a command.
func BenchmarkStdout(b *testing.B) {
	p := benchPair(b)
	args := []string{"head", "-c", strconv.Itoa(benchSize), "/dev/zero"}
	var durations figure.Pair
	b.SetBytes(2 * benchSize)
	for b.Loop() {
		durations.Measure(
			func() { p.run(b, onlyWriter{io.Discard}, nil, args...) },
			func() { p.exec(b, onlyWriter{io.Discard}, nil, args...) })
	}
	throughput("modalbox_stdout", durations)
}

// BenchmarkStdin: 64 MiB to a command.
func BenchmarkStdin(b *testing.B) {
	p := benchPair(b)
	data := make([]byte, benchSize)
	var durations figure.Pair
	b.SetBytes(2 * benchSize)
	for b.Loop() {
		durations.Measure(
			func() { p.run(b, onlyWriter{io.Discard}, data, "wc", "-c") },
			func() { p.exec(b, onlyWriter{io.Discard}, data, "wc", "-c") })
	}
	throughput("modalbox_stdin", durations)
}

func throughput(name string, d figure.Pair) {
	ours, peer := figure.Quantile(d.Ours, 0.5), figure.Quantile(d.Peer, 0.5)
	figure.Line(os.Stdout, name, benchSize/ours.Seconds()/(1<<20), "MiB/s", ours.Seconds()/peer.Seconds(), "modal-client")
}
