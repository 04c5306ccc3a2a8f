package sandboxtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) streamTests() []test {
	return []test{
		{"Pipes", s.testPipes},
		{"StdinPipeWrittenBeforeRun", s.testStdinPipeEarly},
		{"LargeInputAndOutput", s.testLargeStreams},
		{"BinaryIsUntouched", s.testBinary},
		{"EachLineAtOnce", s.testLineByLine},
		{"WaitLongAfterTheEnd", s.testLateWait},
		{"OutputIsReadableAfterTheEnd", s.testOutputAfterExit},
		{"UnreadInputIsNoError", s.testUnreadInput},
		{"InputErrorIsReported", s.testInputError},
		{"WriterErrorEndsTheCommand", s.testWriterError},
		{"ClosedStdoutEndsTheWriter", s.testCloseStdout},
		{"BackgroundProcessAndWaitDelay", s.testWaitDelay},
		{"BackgroundProcessAndRun", s.testBackgroundRun},
		{"UnwantedOutputIsDropped", s.testDroppedOutput},
		{"StreamsAsFiles", s.testStdPaths},
	}
}

func (s *suite) testPipes(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "sh", "-c", "cat; echo problem >&2")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	errs, err3 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one\n", "two\n"} { // asked and answered in turn
		if _, err := io.WriteString(in, line); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(line))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != line {
			t.Fatalf("got %q, %v; want %q", got, err, line)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || len(rest) > 0 {
		t.Errorf("rest of stdout: %q, %v", rest, err)
	}
	stderr, err := io.ReadAll(errs)
	if err != nil || string(stderr) != "problem\n" {
		t.Errorf("stderr: %q, %v", stderr, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func (s *suite) testStdinPipeEarly(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer in.Close()
		_, _ = io.WriteString(in, "values written to stdin")
	}()
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "values written to stdin" {
		t.Errorf("got %q, %v", out, err)
	}
}

// noise is a reader of n reproducible random bytes.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), n) }

func (s *suite) testLargeStreams(t *testing.T) {
	const size = 32 << 20
	want, got := sha256.New(), sha256.New()
	dir, _ := s.dir(t)
	cmd := s.shared.Command(s.context(t), "sh", "-c", `cd "$1" && mkfifo fifo && { cat fifo >&2 & tee fifo; wait; }`, "sh", dir)
	var stderr counter
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.TeeReader(noise(size), want), got, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		t.Error("what came out is not what went in")
	}
	equal(t, "bytes of stderr", int64(stderr), size)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func (s *suite) testBinary(t *testing.T) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	cmd := s.shared.Command(s.context(t), "cat")
	cmd.Stdin = bytes.NewReader(all[:])
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, all[:]) {
		t.Errorf("got %q, %v", out, err)
	}
}

func (s *suite) testLineByLine(t *testing.T) {
	// The command goes on only when it is told to, so what has been read
	// cannot have come at its end.
	cmd := s.shared.Command(s.context(t), "sh", "-c", "echo first; read go; echo second")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("first\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || string(rest) != "second\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func (s *suite) testLateWait(t *testing.T) {
	const size = 4 << 20 // more than any pipe holds
	dir, fsys := s.dir(t)
	var out bytes.Buffer
	cmd := s.shared.Command(s.context(t), "sh", "-c", "head -c 4194304 /dev/zero; touch \"$1\"; exit 9", "sh", dir+"/done")
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, "the command's end", func() bool {
		_, err := fsys.Stat("done")
		return err == nil
	})
	err := cmd.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 9 {
		t.Errorf("got %v, want exit status 9", err)
	}
	equal(t, "bytes of output", out.Len(), size)
}

// eventually polls until ok, or fails at the test's deadline.
func (s *suite) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := s.context(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, context.Cause(ctx))
		}
	}
}

func (s *suite) testOutputAfterExit(t *testing.T) {
	dir, fsys := s.dir(t)
	cmd := s.shared.Command(s.context(t), "sh", "-c", `echo kept; echo too >&2; touch "$1"`, "sh", dir+"/done")
	out, err1 := cmd.StdoutPipe()
	errs, err2 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, "the command's end", func() bool {
		_, err := fsys.Stat("done")
		return err == nil && errors.Is(cmd.Signal(0), os.ErrProcessDone)
	})
	for want, r := range map[string]io.Reader{"kept\n": out, "too\n": errs} {
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want {
			t.Errorf("after the end: got %q, %v; want %q", got, err, want)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func (s *suite) testUnreadInput(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "true")
	cmd.Stdin = noise(16 << 20)
	if err := cmd.Run(); err != nil {
		t.Errorf("a command that reads no input: %v", err)
	}
	cmd = s.shared.Command(s.context(t), "head", "-c", "5")
	cmd.Stdin = io.MultiReader(strings.NewReader("hello"), noise(16<<20))
	out, err := cmd.Output()
	if err != nil || string(out) != "hello" {
		t.Errorf("a command that reads a part: %q, %v", out, err)
	}
}

var errBroken = errors.New("broken on purpose")

func (s *suite) testInputError(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "cat")
	cmd.Stdin = io.MultiReader(strings.NewReader("part"), brokenReader{})
	out, err := cmd.Output()
	isErr(t, "a Stdin that fails", err, errBroken)
	equal(t, "output before it", string(out), "part")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func (s *suite) testWriterError(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "sh", "-c", "echo x; exit 0")
	cmd.Stdout = brokenWriter{}
	isErr(t, "a Stdout that fails", cmd.Run(), errBroken)
	cmd = s.shared.Command(s.context(t), "sh", "-c", "while echo endless; do :; done 2>/dev/null")
	cmd.Stdout = brokenWriter{}
	if err := cmd.Run(); err == nil { // it has to end, by SIGPIPE or by itself
		t.Error("a Stdout that fails: no error")
	}
}

func (s *suite) testCloseStdout(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "cat", "/dev/zero")
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an endless writer whose stdout was closed succeeded")
	}
}

// background starts a process that keeps the command's streams open until the
// FIFO is written to, and lets the command end.
const background = `mkfifo "$1"; { read x < "$1"; echo late; } & echo started`

func (s *suite) testWaitDelay(t *testing.T) {
	dir, _ := s.dir(t)
	cmd := s.shared.Command(s.context(t), "sh", "-c", background, "sh", dir+"/fifo")
	cmd.WaitDelay = 100 * time.Millisecond
	out, err := cmd.Output()
	isErr(t, "streams that stay open", err, sandbox.ErrWaitDelay)
	equal(t, "output before it", string(out), "started\n")
	s.release(t, dir+"/fifo")

	cmd = s.shared.Command(s.context(t), "sh", "-c", background, "sh", dir+"/fifo2")
	cmdOut, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, "the command's end", func() bool { return errors.Is(cmd.Signal(0), os.ErrProcessDone) })
	s.release(t, dir+"/fifo2")
	all, err := io.ReadAll(cmdOut)
	if err != nil || string(all) != "started\nlate\n" {
		t.Errorf("output of a background process: %q, %v", all, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func (s *suite) release(t *testing.T, fifo string) {
	t.Helper()
	s.sh(t, s.shared, `echo go > "$1"`, fifo)
}

func (s *suite) testBackgroundRun(t *testing.T) {
	dir, _ := s.dir(t)
	cmd := s.shared.Command(s.context(t), "sh", "-c", background, "sh", dir+"/fifo")
	if err := cmd.Run(); err != nil { // nobody asked for its streams
		t.Error(err)
	}
	s.release(t, dir+"/fifo")
}

func (s *suite) testDroppedOutput(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "sh", "-c", "head -c 8388608 /dev/zero; head -c 8388608 /dev/zero >&2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("16 MiB that nobody reads: %v", err)
	}
}

func (s *suite) testStdPaths(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "sh", "-c", "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr; echo fd > /dev/fd/1")
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in\n"), &out, &stderr
	err := cmd.Run()
	if err != nil || out.String() != "in\nfd\n" || stderr.String() != "err\n" {
		t.Errorf("/dev/stdin, stdout and stderr: %q and %q, %v", out.String(), stderr.String(), err)
	}
}
