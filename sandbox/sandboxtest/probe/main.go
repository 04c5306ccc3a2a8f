// Command probe runs inside sandboxes under the conformance suite and does what
// sh and coreutils cannot: open connections, and leave its parents the way a
// daemon does. It is built without cgo from this one file.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: probe dial|talk|listen|daemon|hold ARGUMENT")
	}
	switch args[0] {
	case "dial":
		return dial(args[1])
	case "talk":
		return talk(args[1])
	case "listen":
		return listen(args[1])
	case "daemon":
		return daemon("session", args[1])
	case "session":
		return daemon("hold", args[1])
	case "hold":
		return hold(args[1])
	}
	return fmt.Errorf("unknown verb %q", args[0])
}

// dial sends stdin to an address and prints the answer.
func dial(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.Copy(conn, os.Stdin); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// talk sends stdin to an address and prints what it says meanwhile, until that
// ends.
func talk(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, os.Stdin) }()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// listen prints the port it got, then echoes every connection.
func listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// daemon starts itself again in a session of its own, with nothing in the
// environment and no stream inherited, and leaves.
func daemon(verb, fifo string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, verb, fifo)
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// hold keeps a FIFO open for writing until it is killed.
func hold(fifo string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, "up"); err != nil {
		return err
	}
	forever := make(chan os.Signal, 1)
	signal.Notify(forever, syscall.SIGUSR1)
	<-forever
	return f.Close()
}
