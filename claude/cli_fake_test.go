package claude_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The test binary plays the CLI where this variable says what it should print
// for --version: it is a native program, as the CLI is.
const fakeCLIEnv = "VIVARIUM_TEST_CLI_OUTPUT"

func init() {
	if out, ok := os.LookupEnv(fakeCLIEnv); ok && len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(out)
		os.Exit(0)
	}
}

// asCLI makes copies of the test binary say that they are this version.
func asCLI(t *testing.T, version string) {
	t.Helper()
	t.Setenv(fakeCLIEnv, version+" (Claude Code)")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // under -race a process ends 1 s late by default
}

func copySelf(t *testing.T, to string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, to, data, 0o755)
}

func writeFile(t *testing.T, path string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// pathOf makes PATH a single new folder that holds links to the tools given.
func pathOf(t *testing.T, tools ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, tool := range tools {
		at, err := exec.LookPath(tool)
		if err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
		if err := os.Symlink(at, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

// fakeNPM is an npm that runs a shell script for "pack". The script finds the
// destination in $dest and is counted in the file that calls reads.
type fakeNPM struct {
	path, calls string
}

func newNPM(t *testing.T, script string) fakeNPM {
	t.Helper()
	dir := t.TempDir()
	npm := fakeNPM{path: filepath.Join(dir, "npm"), calls: filepath.Join(dir, "calls")}
	writeFile(t, npm.path, []byte(`#!/bin/sh
echo "$*" >> '`+npm.calls+`'
for a in "$@"; do case "$a" in --pack-destination=*) dest="${a#*=}";; esac; done
`+script+"\n"), 0o755)
	return npm
}

func (n fakeNPM) called(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(n.calls)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// packageOf writes a .tgz as npm makes it and returns its path and integrity.
func packageOf(t *testing.T, files map[string][]byte) (path, integrity string) {
	t.Helper()
	data, err := archiveOf(files)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "package.tgz"), data, 0o644), sumOf(data)
}

func archiveOf(files map[string][]byte) ([]byte, error) {
	var buf bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&buf, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(zipped)
	for name, data := range files {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(data); err != nil {
			return nil, err
		}
	}
	err = errors.Join(archive.Close(), zipped.Close())
	return buf.Bytes(), err
}

func sumOf(data []byte) string {
	sum := sha512.Sum512(data)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

var selfArchive = sync.OnceValues(func() ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return nil, err
	}
	return archiveOf(map[string][]byte{"package/claude": data, "package/package.json": []byte("{}")})
})

var selfSum = sync.OnceValue(func() string {
	data, _ := selfArchive() // cliPackage fails the test where it could not be made
	return sumOf(data)
})

// cliPackage is a package whose binary is the test binary.
func cliPackage(t *testing.T) (path, integrity string) {
	t.Helper()
	data, err := selfArchive()
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "package.tgz"), data, 0o644), selfSum()
}
