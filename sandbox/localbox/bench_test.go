//go:build linux

package localbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

func benchProvider(b *testing.B) *sandbox.Provider {
	b.Helper()
	p, err := localbox.Open(&localbox.Options{Dir: b.TempDir()})
	if err != nil {
		b.Skipf("sandboxes are not possible here: %v", err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

func benchSandbox(b *testing.B, p *sandbox.Provider) *sandbox.Sandbox {
	b.Helper()
	sb, err := p.Create(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sb.Terminate(context.Background()) })
	return sb
}

// bareClone runs true in new namespaces of the same kinds, with no root, no
// limits and no filter: the floor of what the kernel asks for them.
func bareClone(b *testing.B) {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCreateExec: a sandbox made, and its first command run to the end.
func BenchmarkCreateExec(b *testing.B) {
	p := benchProvider(b)
	var pair figure.Pair
	var terminate []time.Duration
	for b.Loop() {
		var sb *sandbox.Sandbox
		pair.Measure(func() {
			var err error
			if sb, err = p.Create(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			if err := sb.Command(b.Context(), "/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}, func() { bareClone(b) })
		start := time.Now()
		if err := sb.Terminate(b.Context()); err != nil {
			b.Fatal(err)
		}
		terminate = append(terminate, time.Since(start))
	}
	pair.Print(os.Stdout, "create_exec", "bare-clone-of-the-same-namespaces")
	end := figure.Pair{Ours: terminate, Peer: pair.Peer}
	end.Print(os.Stdout, "terminate", "bare-clone-of-the-same-namespaces")
}

// BenchmarkExecTrue: a command in a sandbox that stands.
func BenchmarkExecTrue(b *testing.B) {
	sb := benchSandbox(b, benchProvider(b))
	var pair figure.Pair
	for b.Loop() {
		pair.Measure(func() {
			if err := sb.Command(b.Context(), "/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}, func() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		})
	}
	pair.Print(os.Stdout, "exec_true", "os/exec")
}

const streamSize = 256 << 20

// BenchmarkStdout: 256 MiB from a command to an io.Writer, against the same
// command run by os/exec.
func BenchmarkStdout(b *testing.B) {
	sb := benchSandbox(b, benchProvider(b))
	args := []string{"-c", strconv.Itoa(streamSize), "/dev/zero"}
	var pair figure.Pair
	b.SetBytes(2 * streamSize)
	for b.Loop() {
		pair.Measure(func() {
			cmd := sb.Command(b.Context(), "head", args...)
			cmd.Stdout = onlyWriter{io.Discard}
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}, func() {
			cmd := exec.Command("head", args...)
			cmd.Stdout = onlyWriter{io.Discard}
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		})
	}
	ours, peer := figure.Quantile(pair.Ours, 0.5), figure.Quantile(pair.Peer, 0.5)
	figure.Line(os.Stdout, "stdout_throughput", streamSize/ours.Seconds()/(1<<20), "MiB/s", peer.Seconds()/ours.Seconds(), "pipe-of-os/exec")
}

// onlyWriter hides io.Discard's ReadFrom, which io.Copy would use on one side only.
type onlyWriter struct{ io.Writer }

const manyAlive = 1000

// BenchmarkThousandAlive: 1,000 sandboxes at once, the memory they take from
// the machine, and that each still answers. The peer is the memory of as many
// idle "sleep" processes.
func BenchmarkThousandAlive(b *testing.B) {
	if testing.Short() {
		b.Skip("takes half a minute; run without -short")
	}
	p := benchProvider(b)
	sleeping := sleepMemory(b) // first: the memory of what ends comes back late
	for b.Loop() {
		before := usedMemory(b)
		start := time.Now()
		boxes := createMany(b, p, manyAlive)
		created := time.Since(start)
		eachOf(b, boxes, func(ctx context.Context, sb *sandbox.Sandbox) error {
			return sb.Command(ctx, "/bin/true").Run()
		})
		perBox := float64(usedMemory(b)-before) / manyAlive / (1 << 20)
		eachOf(b, boxes, func(ctx context.Context, sb *sandbox.Sandbox) error { return sb.Terminate(ctx) })
		figure.Line(os.Stdout, "alive_memory_each", perBox, "MiB", perBox/sleeping, "an-idle-sleep-process")
		figure.Line(os.Stdout, "alive_create_each", created.Seconds()*1000/manyAlive, "ms", created.Seconds()/cloneMany(b).Seconds(), "bare-clones-as-many-at-once")
	}
}

const atOnce = 16

func createMany(b *testing.B, p *sandbox.Provider, n int) []*sandbox.Sandbox {
	boxes := make([]*sandbox.Sandbox, n)
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(atOnce)
	for i := range boxes {
		g.Go(func() (err error) {
			boxes[i], err = p.Create(ctx, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return boxes
}

func eachOf(b *testing.B, boxes []*sandbox.Sandbox, fn func(context.Context, *sandbox.Sandbox) error) {
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(atOnce)
	for _, sb := range boxes {
		g.Go(func() error { return fn(ctx, sb) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func cloneMany(b *testing.B) time.Duration {
	start := time.Now()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for range manyAlive {
		g.Go(func() error { bareClone(b); return nil })
	}
	_ = g.Wait()
	return time.Since(start)
}

// sleepMemory is what one of many idle sleep processes takes, in MiB.
func sleepMemory(b *testing.B) float64 {
	const n = manyAlive
	before := usedMemory(b)
	var cmds []*exec.Cmd
	for range n {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	after := usedMemory(b)
	for _, cmd := range cmds {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return float64(after-before) / n / (1 << 20)
}

// usedMemory is the machine's memory that is not available to new programs, in
// bytes: it counts kernel memory of namespaces and mounts too.
func usedMemory(b *testing.B) int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	var total, available int64
	for line := range strings.Lines(string(data)) {
		_, _ = fmt.Sscanf(line, "MemTotal: %d kB", &total)
		_, _ = fmt.Sscanf(line, "MemAvailable: %d kB", &available)
	}
	return (total - available) << 10
}

// BenchmarkJobLine: from a line that a job writes to its follower, beside a line of
// a command that somebody stays connected to.
func BenchmarkJobLine(b *testing.B) {
	sb := benchSandbox(b, benchProvider(b))
	// EPOCHREALTIME is bash's clock in microseconds, which is the same one inside.
	const script = `for i in {1..200}; do echo "$EPOCHREALTIME"; sleep 0.005; done`
	var followed, streamed []time.Duration
	for b.Loop() {
		j, err := sb.StartJob(b.Context(), &sandbox.JobConfig{Name: "bench", Args: []string{"bash", "-c", script}})
		if err != nil {
			b.Fatal(err)
		}
		r, err := j.Output(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		followed = append(followed, ages(b, r)...)
		if err := errors.Join(r.Close(), j.Remove(b.Context())); err != nil {
			b.Fatal(err)
		}
		cmd := sb.Command(b.Context(), "bash", "-c", script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		streamed = append(streamed, ages(b, out)...)
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	for name, q := range map[string]float64{"job_line_p50": 0.5, "job_line_p99": 0.99} {
		ours, peer := figure.Quantile(followed, q), figure.Quantile(streamed, q)
		figure.Line(os.Stdout, name, ours.Seconds()*1000, "ms", ours.Seconds()/peer.Seconds(), "stream-of-a-command")
	}
}

// ages reads times and says how old each is.
func ages(b *testing.B, r io.Reader) (all []time.Duration) {
	b.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		seconds, micros, _ := strings.Cut(lines.Text(), ".")
		s, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		us, err := strconv.ParseInt(micros, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(time.Unix(s, us*1000)))
	}
	if err := lines.Err(); err != nil || len(all) != 200 {
		b.Fatal(len(all), err)
	}
	return all
}
