// Package fstools stands in for the program that Modal's client runs in a
// sandbox for each operation on files: one JSON argument says what to do, stdin
// and stdout carry content, and what goes wrong is a JSON object on stderr.
package fstools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Path is the program's, inside a sandbox.
const Path = "/__modal/.bin/modal-sandbox-fs-tools"

// How the program ends.
const (
	exitFailed = 1
	exitUsage  = 2
)

// request is the argument: one of its fields is set.
type request struct {
	Stat          *pathRequest
	ListFiles     *pathRequest
	ReadFile      *pathRequest
	WriteFile     *pathRequest
	MakeDirectory *makeRequest
	Remove        *removeRequest
	Watch         *watchRequest
}

type pathRequest struct {
	Path string `json:"path"`
}

type makeRequest struct {
	Path    string `json:"path"`
	Parents bool   `json:"parents"`
}

type removeRequest struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive"`
}

type watchRequest struct {
	Path      string    `json:"path"`
	Recursive bool      `json:"recursive"`
	Filter    *[]string `json:"filter"`       // nil: every type
	Timeout   *float64  `json:"timeout_secs"` // nil: none
}

// tool is one run of the program.
type tool struct {
	ctx    context.Context
	box    driver.Sandbox
	fsys   driver.FileSystem
	stdin  *process.Reader
	stdout io.Writer
}

// Program is the program with its arguments, Path not among them, in box.
func Program(box driver.Sandbox, args []string) process.Func {
	return func(ctx context.Context, stdin *process.Reader, stdout, stderr io.Writer) process.Exit {
		t := &tool{ctx: ctx, box: box, fsys: box.Files(), stdin: stdin, stdout: stdout}
		do, err := t.parse(args)
		if err != nil {
			fmt.Fprintln(stderr, err)
			return process.Exit{Code: exitUsage}
		}
		err = do()
		switch {
		case err == nil:
			return process.Exit{}
		case errors.Is(err, driver.ErrEnded):
			return process.Exit{Code: -1, Signal: driver.SIGKILL, Lost: true}
		}
		failure := failureOf(err)
		if err := json.NewEncoder(stderr).Encode(failure); err != nil {
			return process.Exit{Code: exitUsage}
		}
		return process.Exit{Code: exitFailed}
	}
}

// parse finds out what to do.
func (t *tool) parse(args []string) (do func() error, err error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("usage: modal-sandbox-fs-tools JSON")
	}
	dec := json.NewDecoder(strings.NewReader(args[0]))
	dec.DisallowUnknownFields()
	var r request
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("modal-sandbox-fs-tools: invalid command: %w", err)
	}
	var name *string
	switch {
	case r.Stat != nil:
		name, do = &r.Stat.Path, func() error { return t.stat(r.Stat.Path) }
	case r.ListFiles != nil:
		name, do = &r.ListFiles.Path, func() error { return t.list(r.ListFiles.Path) }
	case r.ReadFile != nil:
		name, do = &r.ReadFile.Path, func() error { return t.read(r.ReadFile.Path) }
	case r.WriteFile != nil:
		name, do = &r.WriteFile.Path, func() error { return t.write(r.WriteFile.Path) }
	case r.MakeDirectory != nil:
		name, do = &r.MakeDirectory.Path, func() error { return t.mkdir(r.MakeDirectory) }
	case r.Remove != nil:
		name, do = &r.Remove.Path, func() error { return t.remove(r.Remove) }
	case r.Watch != nil:
		name, do = &r.Watch.Path, func() error { return t.watch(r.Watch) }
	default:
		return nil, errors.New("modal-sandbox-fs-tools: no command")
	}
	if !path.IsAbs(*name) {
		return nil, fmt.Errorf("modal-sandbox-fs-tools: path %q is not absolute", *name)
	}
	*name = path.Clean(*name)
	return do, nil
}
