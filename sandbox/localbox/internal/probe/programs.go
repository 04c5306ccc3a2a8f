//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// i386Program runs one made for i386, whose every system call goes by that door.
func i386Program(f *Facts) (string, bool) {
	name := filepath.Join(f.Workspace, ".probe-i386")
	if err := os.WriteFile(name, elf386, 0o700); err != nil {
		return held("%v", err)
	}
	defer os.Remove(name)
	err := exec.Command(name).Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 42 {
		return got("it ran")
	}
	return held("%v", err)
}

// untilEOF lives until standard input ends.
func untilEOF() int {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 1
	}
	return 0
}

// childMain is what the probes' own children do. Exit code 0 means through.
func childMain(args []string) int {
	var err error
	switch args[0] {
	case "nothing":
		return 0
	case "i386":
		err = i386()
	case "x32":
		err = x32()
	case "beyond":
		err = beyond()
	case "terminal":
		err = pushInput()
	case "wait":
		return untilEOF()
	case "threads":
		return threads(args[1])
	case "touch":
		return touch(args[1:])
	default:
		err = fmt.Errorf("no child is called %q", args[0])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Print("it worked")
	return 0
}
