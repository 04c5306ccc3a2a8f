package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// exampleTime bounds one example.
const exampleTime = time.Minute

// needs are the examples that cannot do here what they show, with what they lack.
var needs = map[string]string{
	"cls-call":                     "a deployed class",
	"cls-call-with-options":        "a deployed class",
	"cls-routing-region":           "a deployed class",
	"function-call":                "a deployed function",
	"function-current-stats":       "a deployed function",
	"function-spawn":               "a deployed function",
	"telemetry":                    "a deployed function, and a module of its own",
	"custom-client":                "a token in CUSTOM_MODAL_ID",
	"image-building":               "apk, of alpine",
	"sandbox-agent":                "apk, of alpine",
	"sandbox-directory-snapshot":   "apk, of alpine",
	"sandbox-exec":                 "a program called python",
	"sandbox-private-image":        "a program called python",
	"sandbox-gpu":                  "a GPU",
	"sandbox-proxy":                "the Internet",
	"sandbox-network-policy":       "the Internet",
	"sandbox-cloud-bucket":         "a bucket",
	"sandbox-sidecar-cloud-bucket": "a bucket",
}

// runExamples runs each example; their output is for somebody to read.
func runExamples(ctx context.Context, emu *emulator) error {
	found, err := exec.CommandContext(ctx, "go", "list", "-find", client+"/examples/...").Output()
	if err != nil {
		return fmt.Errorf("listing the examples: %w", err)
	}
	var failed []string
	for _, pkg := range strings.Fields(string(found)) {
		name := path.Base(pkg)
		if why := needs[name]; why != "" {
			fmt.Printf("=== %s: left out, needs %s\n", name, why)
			continue
		}
		fmt.Printf("=== %s\n", name)
		if err := runExample(ctx, emu, pkg); err != nil {
			fmt.Printf("=== %s failed: %v\n", name, err)
			failed = append(failed, name)
		}
	}
	if len(failed) > 0 {
		return errors.New("examples that failed: " + strings.Join(failed, ", "))
	}
	return ctx.Err()
}

func runExample(ctx context.Context, emu *emulator, pkg string) error {
	ctx, cancel := context.WithTimeout(ctx, exampleTime)
	defer cancel()
	program := filepath.Join(filepath.Dir(emu.dir), path.Base(pkg))
	build := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	c := emu.command(ctx, program)
	c.Env = append(c.Env, "SSL_CERT_FILE="+filepath.Join(emu.dir, "tunnel-ca.pem")) // for tunnels
	return errors.Join(c.Run(), os.Remove(program))
}
