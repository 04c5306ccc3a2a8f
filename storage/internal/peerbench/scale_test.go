package peerbench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/internal/s3test"
)

// scaleVariable makes the test's binary a child of BenchmarkScale.
const scaleVariable = "VIVARIUM_PEERBENCH_CHILD"

// scaleJob is what a child is to do, in JSON. Its memory is all its own.
type scaleJob struct {
	Server   s3test.Server
	Dir, Out string
	Op       string // "first", "noop" or "restore"
	Version  string // to restore

	digest string // of Dir
}

// scaleResult is what a child prints.
type scaleResult struct {
	Version string
	Seconds float64
	Peak    float64 // of resident memory, in MiB
}

func scaleChild(text string) int {
	var j scaleJob
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (j *scaleJob) run() error {
	g := &ground{server: &j.Server}
	t := &tree{name: "scale", dir: j.Dir}
	v := newVolumes(g, onHere(j.Out), "scale")
	v.now[t.name], v.last[t.name] = filepath.Base(j.Dir), j.Version
	start := time.Now()
	var err error
	if j.Op == "restore" {
		err = v.restore(context.Background(), t, j.Out)
	} else {
		err = v.sync(context.Background(), t)
	}
	if err != nil {
		return err
	}
	result := scaleResult{Version: v.last[t.name], Seconds: time.Since(start).Seconds()}
	if result.Peak, err = peak(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// peak is the most resident memory this process had, in MiB (VmHWM in proc(5)).
func peak() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	fields := strings.Fields(string(after[:min(len(after), 40)]))
	if len(fields) == 0 {
		return 0, fmt.Errorf("no VmHWM in /proc/self/status")
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	return kib / 1024, err
}

// BenchmarkScale measures how time and memory grow with the number of files.
func BenchmarkScale(b *testing.B) {
	if *scale == 0 {
		b.Skip("it takes minutes and gigabytes of memory; run make bench-storage-scale")
	}
	g := newGround(b)
	base := map[string]scaleResult{}
	for b.Loop() {
		for n := 10_000; n <= *scale; n *= 10 {
			measureScale(b, g, n, base)
		}
	}
}

// measureScale measures n files; base keeps what the first of them took.
func measureScale(b *testing.B, g *ground, n int, base map[string]scaleResult) {
	b.Helper()
	j := &scaleJob{Server: *g.server, Dir: filepath.Join(g.dir, fmt.Sprint("files-", n)), Out: filepath.Join(g.dir, "out")}
	err := manyFiles(j.Dir, n)
	if err == nil {
		j.digest, err = digest(g.ctx, here{}, j.Dir, false)
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, op := range []string{"first", "noop", "restore"} {
		result, err := j.start(g.ctx, op)
		if err != nil {
			b.Fatalf("%s of %d files: %v", op, n, err)
		}
		if _, ok := base[op]; !ok {
			base[op] = result
		}
		scaleFigures(op, n, result, base[op])
	}
	if err := j.end(g.ctx); err != nil {
		b.Fatal(err)
	}
}

func scaleFigures(op string, n int, r, base scaleResult) {
	each, of := r.Seconds*1e6/float64(n), base.Seconds*1e6/10_000
	name := fmt.Sprintf("scale_%d_%s", n, op)
	fmt.Fprintf(os.Stderr, "%s: %.2f s, peak %.0f MiB\n", name, r.Seconds, r.Peak)
	figure.Line(os.Stdout, name, each, "us/file", each/of, "10000-files")
	figure.Line(os.Stdout, name+"_peak", r.Peak, "MiB", r.Peak/base.Peak, "10000-files")
}

// start runs one operation in a process of its own. Before it restores, it
// removes the tree, as two of a million files are too much for many machines.
func (j *scaleJob) start(ctx context.Context, op string) (r scaleResult, err error) {
	j.Op = op
	if op == "restore" {
		if err := os.RemoveAll(j.Dir); err != nil {
			return r, err
		}
		if err := os.Mkdir(j.Out, 0o755); err != nil {
			return r, err
		}
	}
	text, err := json.Marshal(j)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), scaleVariable+"="+string(text))
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := runGroup(cmd); err != nil {
		return r, err
	}
	err = json.Unmarshal(out.Bytes(), &r)
	j.Version = r.Version
	return r, err
}

// end checks that what was restored is what was synced, and removes it.
func (j *scaleJob) end(ctx context.Context) error {
	got, err := digest(ctx, here{}, j.Out, false)
	if err == nil && got != j.digest {
		err = errors.New("what was restored is not what was synced")
	}
	return errors.Join(err, os.RemoveAll(j.Out))
}

// manyFiles makes n files of about 100 bytes, 100 to a folder.
func manyFiles(dir string, n int) error {
	w := newWords(3)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d/e%03d", i/100/100, i/100%100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), w.text(50+i%100), 0o644); err != nil {
			return err
		}
	}
	return nil
}
