//go:build linux

package modalemu_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

const peer = "a-bare-gRPC-server-with-the-same-messages"

// sides are a sandbox of the emulator and one of the bare server.
func sides(b *testing.B) (ours, bare *modal.Sandbox) {
	b.Helper()
	return sandboxAt(b, modaltest.New(b, nil).URL()), startBare(b)
}

// run runs a command to its end, and gives its stdout to w.
func run(b *testing.B, sb *modal.Sandbox, w io.Writer, command ...string) {
	p, err := sb.Exec(b.Context(), command, nil)
	if err != nil {
		b.Fatal(err)
	}
	if w != nil {
		if _, err := io.Copy(w, p.Stdout); err != nil {
			b.Fatal(err)
		}
	}
	wait(b, p)
}

func wait(b *testing.B, p *modal.ContainerProcess) {
	code, err := p.Wait(context.WithoutCancel(b.Context()), nil)
	if err != nil || code != 0 {
		b.Fatalf("exit %d, %v", code, err)
	}
}

// compare measures the same with both sides, in turns.
func compare(b *testing.B, do func(*modal.Sandbox)) (pair figure.Pair) {
	ours, bare := sides(b)
	do(ours)
	do(bare) // their connections are open now
	b.ResetTimer()
	for b.Loop() {
		pair.Measure(func() { do(ours) }, func() { do(bare) })
	}
	return pair
}

// throughput prints bytes a second; the ratio is of the times, as everywhere.
func throughput(pair figure.Pair, name string, size int) {
	ours, bare := figure.Quantile(pair.Ours, 0.5), figure.Quantile(pair.Peer, 0.5)
	figure.Line(os.Stdout, name, float64(size)/ours.Seconds()/(1<<20), "MiB/s", ours.Seconds()/bare.Seconds(), peer)
}

func median(pair figure.Pair, name string) {
	ours, bare := figure.Quantile(pair.Ours, 0.5), figure.Quantile(pair.Peer, 0.5)
	figure.Line(os.Stdout, name, float64(ours)/float64(time.Millisecond), "ms", ours.Seconds()/bare.Seconds(), peer)
}

// BenchmarkExecTrue: a command started and waited for.
func BenchmarkExecTrue(b *testing.B) {
	pair := compare(b, func(sb *modal.Sandbox) { run(b, sb, nil, "/bin/true") })
	median(pair, "modalemu_exec_true_p50")
}

// BenchmarkExecLine: a command whose one line is read to its end.
func BenchmarkExecLine(b *testing.B) {
	pair := compare(b, func(sb *modal.Sandbox) { run(b, sb, io.Discard, "/bin/echo", "hello") })
	median(pair, "modalemu_exec_line_p50")
}

const streamed = 256 << 20

// BenchmarkStdout: 256 MiB from a command.
func BenchmarkStdout(b *testing.B) {
	pair := compare(b, func(sb *modal.Sandbox) {
		run(b, sb, writer{io.Discard}, "/usr/bin/head", "-c", strconv.Itoa(streamed), "/dev/zero")
	})
	throughput(pair, "modalemu_stdout", streamed)
}

// writer hides io.Discard's ReadFrom, whose buffer is a small one.
type writer struct{ io.Writer }

// BenchmarkStdin: 64 MiB to a command, in writes of 1 MiB.
func BenchmarkStdin(b *testing.B) {
	const size = 64 << 20
	piece := make([]byte, 1<<20)
	pair := compare(b, func(sb *modal.Sandbox) {
		p, err := sb.Exec(b.Context(), []string{"/bin/sh", "-c", "exec cat > /dev/null"}, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range size / len(piece) {
			if _, err := p.Stdin.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		if err := p.Stdin.Close(); err != nil {
			b.Fatal(err)
		}
		wait(b, p)
	})
	throughput(pair, "modalemu_stdin", size)
}

// content is a file that does not compress and has no zero pages.
func content(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i*7 + i>>9)
	}
	return data
}

func writeFile(b *testing.B, sb *modal.Sandbox, data []byte) {
	if err := sb.Filesystem.WriteBytes(b.Context(), data, "/tmp/file", nil); err != nil {
		b.Fatal(err)
	}
}

func readFile(b *testing.B, sb *modal.Sandbox, want []byte) {
	got, err := sb.Filesystem.ReadBytes(b.Context(), "/tmp/file", nil)
	if err != nil || !bytes.Equal(got, want) {
		b.Fatalf("%d bytes, %v", len(got), err)
	}
}

const fileSize = 64 << 20

// BenchmarkWriteFile: a file of 64 MiB.
func BenchmarkWriteFile(b *testing.B) {
	data := content(fileSize)
	pair := compare(b, func(sb *modal.Sandbox) { writeFile(b, sb, data) })
	throughput(pair, "modalemu_file_write", len(data))
}

// BenchmarkReadFile: the same, read.
func BenchmarkReadFile(b *testing.B) {
	data := content(fileSize)
	written := make(map[*modal.Sandbox]bool)
	pair := compare(b, func(sb *modal.Sandbox) {
		if !written[sb] {
			writeFile(b, sb, data)
			written[sb] = true
		}
		readFile(b, sb, data)
	})
	throughput(pair, "modalemu_file_read", len(data))
}

// BenchmarkSmallFile: 4 KiB written and read.
func BenchmarkSmallFile(b *testing.B) {
	data := content(4 << 10)
	pair := compare(b, func(sb *modal.Sandbox) {
		writeFile(b, sb, data)
		readFile(b, sb, data)
	})
	median(pair, "modalemu_small_file_p50")
}
