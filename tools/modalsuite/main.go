// Command modalsuite runs the tests of Modal's Go client, those that need Modal
// included, unmodified and straight from the module cache, against the emulator.
// With -examples it runs the client's example programs instead, and prints what
// they print.
//
//	cd tools/modalsuite && go run . [-run regexp] [-examples]
//
// Tests that cannot pass by their nature are in skip.txt, each with its reason.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const client = "github.com/modal-labs/modal-client/go"

//go:embed skip.txt
var skipped string

func main() {
	run := flag.String("run", "", "run the tests that match this `regexp` only")
	examples := flag.Bool("examples", false, "run the example programs, not the tests")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := suite(ctx, *run, *examples); err != nil {
		fmt.Fprintln(os.Stderr, "modalsuite:", err)
		os.Exit(1)
	}
}

func suite(ctx context.Context, run string, examples bool) (err error) {
	dir, err := os.MkdirTemp("", "modalsuite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	emu, err := startEmulator(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emu.end()) }()
	if examples {
		return runExamples(ctx, emu)
	}
	return runTests(ctx, emu, run)
}

// skipPattern matches the tests of skip.txt, for go test.
func skipPattern() (string, error) {
	var names []string
	for line := range strings.Lines(skipped) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(reason) == "" || !strings.HasPrefix(name, "Test") {
			return "", fmt.Errorf("skip.txt: %q is not \"name: reason\"", line)
		}
		names = append(names, name)
	}
	return "^(" + strings.Join(names, "|") + ")$", nil
}

// runTests runs the tests of the client's own package, for which the build tag
// adds those that need Modal, and those of its package test.
func runTests(ctx context.Context, emu *emulator, run string) error {
	skip, err := skipPattern()
	if err != nil {
		return err
	}
	args := []string{"test", "-tags", "integration", "-count=1", "-p", "1", "-parallel", "4", "-timeout", "20m", "-skip", skip}
	if run != "" {
		args = append(args, "-run", run)
	}
	return emu.command(ctx, "go", append(args, client, client+"/test")...).Run()
}

// emulator is a running emulator.
type emulator struct {
	cmd *exec.Cmd
	url string
	dir string
}

// named are the secrets that the client's tests and examples ask for by name.
var named = []string{
	"libmodal-test-secret=a=1", "libmodal-test-secret=b=2", "libmodal-test-secret=c=hello world",
	"libmodal-gcp-artifact-registry-test=REGISTRY_USERNAME=_json_key",
	"libmodal-gcp-artifact-registry-test=REGISTRY_PASSWORD={}",
	"libmodal-gcp-artifact-registry-test=SERVICE_ACCOUNT_JSON={}",
	"libmodal-aws-ecr-test=AWS_ACCESS_KEY_ID=none", "libmodal-aws-ecr-test=AWS_SECRET_ACCESS_KEY=none",
	"libmodal-aws-ecr-test=AWS_REGION=us-east-1",
}

// startEmulator builds the emulator of this repository, and starts it.
func startEmulator(ctx context.Context, dir string) (*emulator, error) {
	program := filepath.Join(dir, "modalemu")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./internal/modalemu/cmd/modalemu")
	build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the emulator: %w", err)
	}
	e := &emulator{dir: filepath.Join(dir, "state")}
	args := []string{"-listen", "127.0.0.1:0", "-base", "host", "-state", e.dir, "-environment", "libmodal", "-proxy", "libmodal-test-proxy"}
	for _, s := range named {
		args = append(args, "-secret", s)
	}
	// It is ended by end, not by the context: it has to tidy up.
	e.cmd = exec.Command(program, args...)
	e.cmd.Stderr = os.Stderr
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	at := strings.Index(line, "http://")
	if err != nil || at < 0 {
		return nil, errors.Join(fmt.Errorf("the emulator said %q", line), e.cmd.Process.Kill(), e.cmd.Wait())
	}
	e.url = strings.TrimSpace(line[at:])
	return e, nil
}

// end ends the emulator, and looks at what it has left.
func (e *emulator) end() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := e.cmd.Wait(); err != nil {
		return fmt.Errorf("the emulator: %w", err)
	}
	var errs []error
	for _, d := range []string{"spool", "files/mounts"} {
		left, err := filepath.Glob(filepath.Join(e.dir, d, "*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the emulator has left %d files such as %s", len(left), filepath.Base(left[0]))
		}
		errs = append(errs, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err == nil && bytes.Contains(mounts, []byte(e.dir)) {
		errs = append(errs, errors.New("the emulator has left a mount"))
	}
	return errors.Join(errs...)
}

// command is a program whose client finds the emulator.
func (e *emulator) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "MODAL_SERVER_URL="+e.url, "MODAL_TOKEN_ID=ak-suite", "MODAL_TOKEN_SECRET=as-suite")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.WaitDelay = 10 * time.Second
	return c
}
