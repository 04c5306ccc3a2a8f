package modalbox

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// file implements driver.File, by name: Modal keeps no file open between two
// commands. What is written goes to one command as a stream, and what is read
// comes from one, so that no file is ever held in memory; a write is certain
// when Close, or a Read, Seek or Stat after it, has returned.
type file struct {
	f    files
	ctx  context.Context
	name string
	flag int

	mu      sync.Mutex
	closed  bool
	isDir   bool
	at      int64
	known   *info // what is to be told of it, once, without asking
	reader  *fileReader
	writer  *fileWriter
	written error // why writing has failed
}

// fileReader is a command that prints part of a file.
type fileReader struct {
	cp   *modal.ContainerProcess
	stop func()
	left int64 // bytes that may still come
}

// fileWriter is a command that writes its input to a file.
type fileWriter struct {
	cp   *modal.ContainerProcess
	stop func()
}

// window is how much of a file one command prints at the most: it prints whether
// or not it is read.
const (
	firstWindow = 4 << 20
	window      = 64 << 20
)

// OpenFile implements driver.FileSystem.
func (f files) OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (driver.File, error) {
	if err := f.b.check(ctx, name); err != nil {
		return nil, err
	}
	devices, err := f.b.kernelDevices(ctx)
	if err != nil {
		return nil, err
	}
	o := &file{f: f, ctx: ctx, name: name, flag: flag}
	if err := o.open(perm, devices); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *file) writes() bool { return o.flag&(os.O_WRONLY|os.O_RDWR) != 0 }
func (o *file) reads() bool  { return o.flag&os.O_WRONLY == 0 }

// open opens the file inside, and goes on with what is likely to come next.
func (o *file) open(perm fs.FileMode, devices string) error {
	writing := o.writes() && (!o.reads() || o.flag&os.O_TRUNC != 0)
	script := openScript + `open "$@" || exit` + "\n"
	if writing {
		place := o.place(0)
		if place == "0" && o.flag&os.O_TRUNC != 0 {
			place = "t"
		}
		script += `set -- "$1" ` + place + "\n" + writeScript
	} else {
		script += `set -- "$1" ` + strconv.Itoa(firstWindow) + ` 0; [ -d "$1" ] && exit` + "\n" + readScript
	}
	cp, err := o.f.b.run(o.ctx, script, o.name, o.how(), octalMode(perm.Perm()&^umask), devices,
		fmt.Sprintf("%04o", ^perm.Perm()&0o777|umask))
	if err != nil {
		return o.f.b.explain(o.ctx, "open a file", err)
	}
	stop := closing(o.ctx, cp.Stdout)
	if err := o.opened(cp.Stdout); err != nil {
		stop()
		return err
	}
	switch {
	case o.isDir:
		stop()
	case writing:
		o.writer = &fileWriter{cp: cp, stop: stop}
	default:
		o.reader = &fileReader{cp: cp, stop: stop, left: firstWindow}
	}
	return nil
}

// how says what to do as openScript takes it.
func (o *file) how() string {
	var how string
	for letter, set := range map[string]bool{
		"r": o.reads(), "w": o.writes(), "c": o.flag&os.O_CREATE != 0,
		"x": o.flag&(os.O_EXCL|os.O_CREATE) == os.O_EXCL|os.O_CREATE, "t": o.flag&os.O_TRUNC != 0,
	} {
		if set {
			how += letter
		}
	}
	return how
}

// opened reads what openScript says.
func (o *file) opened(out io.Reader) error {
	line, err := headLine(out)
	if err != nil && err != io.EOF {
		return o.f.b.explain(o.ctx, "open a file", err)
	}
	if !strings.HasPrefix(line, "k") {
		rest, _ := io.ReadAll(io.LimitReader(out, 4<<10))
		if text := lastLine(append([]byte(line+"\n"), rest...)); text != "" {
			return parseError(text)
		}
		o.f.b.awaitEnd(o.ctx) // which is why, as a rule
		return o.f.b.explain(o.ctx, "open a file", fmt.Errorf("%w: the command that opens it has ended", driver.ErrUnavailable))
	}
	if o.known, err = parseStat(o.name, line[1:]); err != nil {
		return err
	}
	o.isDir = o.known.IsDir()
	return nil
}

// place is where to write, as writeScript takes it.
func (o *file) place(at int64) string {
	if o.flag&os.O_APPEND != 0 {
		return "a"
	}
	return strconv.FormatInt(at, 10)
}

// headLine reads one line, and not a byte more.
func headLine(r io.Reader) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, one); err != nil {
			return string(line), err
		}
		if one[0] == '\n' {
			return string(line), nil
		}
		line = append(line, one[0])
	}
}

// Stat implements fs.File.
func (o *file) Stat() (fs.FileInfo, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, fs.ErrClosed
	}
	if known := o.known; known != nil {
		o.known = nil
		if known.time.Nanosecond() != 0 { // otherwise it may not be exact
			return known, nil
		}
	}
	if err := o.flush(); err != nil {
		return nil, err
	}
	i, err := o.f.follow(o.ctx, o.name)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Seek implements io.Seeker.
func (o *file) Seek(offset int64, whence int) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, fs.ErrClosed
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	to := offset
	switch whence {
	case io.SeekCurrent:
		to += o.at
	case io.SeekEnd:
		i, err := o.f.follow(o.ctx, o.name)
		if err != nil {
			return 0, err
		}
		to += i.size
	case io.SeekStart:
	default:
		return 0, syscall.EINVAL
	}
	if to < 0 {
		return 0, syscall.EINVAL
	}
	if to != o.at {
		o.stopReader()
	}
	o.at = to
	return to, nil
}

// Close implements fs.File.
func (o *file) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return fs.ErrClosed
	}
	o.closed = true
	o.stopReader()
	if o.writer == nil {
		return nil // what failed has been told
	}
	return o.flush()
}
