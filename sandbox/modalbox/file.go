package modalbox

import (
	"bytes"
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
	out  io.ReadCloser
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

// openScript opens $1 as the letters in $2 say (w write, c create, x exclusive, t
// truncate), with permissions $3. $4 are the devices of /proc and /sys. It prints
// "k" and what stat(1) knows, or an error's text.
const openScript = `exec 2>&1
LC_ALL=C; export LC_ALL
open() {
	if [ ! -e "$1" ]; then
		case $2 in *c*) ;; *) stat -L -- "$1" >/dev/null; return 1 ;; esac
		( umask "$5"; case $2 in *x*) set -C; : >"$1" ;; *) : >>"$1" ;; esac ) || return 1
		case $3 in *[1357]?|*[1357]??|*[1357]) chmod "$3" -- "$1" || return 1 ;; esac
	else
		case $2 in *x*) echo "$1: File exists"; return 1 ;; esac
	fi
	s=$(stat -L -c '%d ` + statFormat + `' -- "$1") || { echo "$s"; return 1; }
	case " $4 " in *" ${s%% *} "*) echo "$1: Permission denied"; return 1 ;; esac
	s=${s#* }
	case $s in
	4???" "*) case $2 in *w*) echo "$1: Is a directory"; return 1 ;; esac; echo "k$s" ;;
	8???" "*) case $2 in
		*w*) [ -w "$1" ] || { echo "$1: Permission denied"; return 1; } ;;
		esac
		case $2 in
		*r*) [ -r "$1" ] || { echo "$1: Permission denied"; return 1; } ;;
		esac
		case $2 in *t*) : >"$1" || return 1; s=$(stat -L -c '` + statFormat + `' -- "$1") ;; esac
		echo "k$s" ;;
	*) echo "$1: Operation not permitted"; return 1 ;;
	esac
}
`

// readScript prints $2 bytes of $1 from byte $3 on.
const readScript = `{ [ "$3" = 0 ] || dd bs=1 count=0 skip="$3" 2>/dev/null; head -c "$2"; } <"$1" 2>/dev/null`

// writeScript writes its input to $1, from byte $2 on or at the end (a), and then
// prints the status after what went wrong.
const writeScript = `case $2 in
a) cat >>"$1" ;;
0) cat 1<>"$1" ;;
*) { dd bs=1 count=0 seek="$2" conv=notrunc 2>/dev/null; cat; } 1<>"$1" ;;
esac
printf '\n%d' "$?"`

// kernelDevices are those of /proc and /sys, whose files look regular.
func (b *box) kernelDevices(ctx context.Context) (string, error) {
	b.mu.Lock()
	known := b.devices
	b.mu.Unlock()
	if known != "" {
		return known, nil
	}
	out, _, err := b.script(ctx, `for d in / /proc /sys; do stat -c %d $d 2>/dev/null || echo none; done`)
	if err != nil {
		return "", err
	}
	devices := strings.Fields(string(out))
	known = "none"
	for _, d := range devices[min(1, len(devices)):] {
		if d != devices[0] { // where it is mounted at all
			known += " " + d
		}
	}
	b.mu.Lock()
	b.devices = known
	b.mu.Unlock()
	return known, nil
}

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
	var how strings.Builder
	for letter, set := range map[string]bool{
		"r": o.reads(), "w": o.writes(), "c": o.flag&os.O_CREATE != 0,
		"x": o.flag&(os.O_EXCL|os.O_CREATE) == os.O_EXCL|os.O_CREATE, "t": o.flag&os.O_TRUNC != 0,
	} {
		if set {
			how.WriteString(letter)
		}
	}
	then := readScript
	args := []string{o.name, how.String(), octalMode(perm.Perm() &^ umask), devices, fmt.Sprintf("%04o", ^perm.Perm()&0o777|umask)}
	writing := o.writes() && (!o.reads() || o.flag&os.O_TRUNC != 0)
	script := openScript + `open "$@" || exit` + "\n"
	if writing {
		then = writeScript
		script += `set -- "$1" ` + o.place(0)
	} else {
		script += `set -- "$1" ` + strconv.Itoa(firstWindow) + ` 0; [ -d "$1" ] && exit`
	}
	cp, err := o.f.b.run(o.ctx, script+"\n"+then, args...)
	if err != nil {
		return o.f.b.explain(o.ctx, "open a file", err)
	}
	stop := closing(o.ctx, cp.Stdout)
	line, err := headLine(cp.Stdout)
	if err != nil && err != io.EOF {
		stop()
		return o.f.b.explain(o.ctx, "open a file", err)
	}
	if !strings.HasPrefix(line, "k") {
		rest, _ := io.ReadAll(io.LimitReader(cp.Stdout, 4<<10))
		stop()
		return o.f.b.alive(o.ctx, parseError(lastLine(append([]byte(line+"\n"), rest...))))
	}
	if o.known, err = parseStat(o.name, line[1:]); err != nil {
		stop()
		return err
	}
	if o.isDir = o.known.IsDir(); o.isDir {
		stop()
	} else if writing {
		o.writer = &fileWriter{cp: cp, stop: stop}
	} else {
		o.reader = &fileReader{out: cp.Stdout, stop: stop, left: firstWindow}
	}
	return nil
}

// alive makes an error without a text one about the sandbox's end, if that is why.
func (b *box) alive(ctx context.Context, err error) error {
	if b.ended() != nil {
		return driver.ErrEnded
	}
	return err
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

// Read implements io.Reader.
func (o *file) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.reads():
		return 0, syscall.EBADF
	case o.isDir:
		return 0, syscall.EISDIR
	case len(p) == 0:
		return 0, nil
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	for {
		if o.reader == nil {
			if err := o.startReader(window); err != nil {
				return 0, err
			}
		}
		n, err := o.reader.out.Read(p)
		o.at += int64(n)
		o.reader.left -= int64(n)
		if n > 0 {
			return n, nil
		}
		whole := o.reader.left == 0
		if err != nil {
			o.stopReader()
		}
		if err == io.EOF && whole {
			continue // the window is over, not the file
		}
		if err == io.EOF {
			return 0, o.f.b.alive(o.ctx, io.EOF)
		}
		if err != nil {
			return 0, o.f.b.explain(o.ctx, "read a file", err)
		}
	}
}

func (o *file) startReader(size int64) error {
	cp, err := o.f.b.run(o.ctx, readScript, o.name, strconv.FormatInt(size, 10), strconv.FormatInt(o.at, 10))
	if err != nil {
		return o.f.b.explain(o.ctx, "read a file", err)
	}
	o.reader = &fileReader{out: cp.Stdout, stop: closing(o.ctx, cp.Stdout), left: size}
	return nil
}

func (o *file) stopReader() {
	if o.reader != nil {
		o.reader.stop()
		o.reader = nil
	}
}

// ReadAt implements io.ReaderAt.
func (o *file) ReadAt(p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.reads():
		return 0, syscall.EBADF
	case o.isDir:
		return 0, syscall.EISDIR
	case off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	cp, err := o.f.b.run(o.ctx, readScript, o.name, strconv.Itoa(len(p)), strconv.FormatInt(off, 10))
	if err != nil {
		return 0, o.f.b.explain(o.ctx, "read a file", err)
	}
	defer closing(o.ctx, cp.Stdout)()
	n, err := io.ReadFull(cp.Stdout, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return n, o.f.b.alive(o.ctx, io.EOF)
	}
	return n, o.f.b.explain(o.ctx, "read a file", err)
}

// Write implements io.Writer.
func (o *file) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.writes():
		return 0, syscall.EBADF
	case o.written != nil:
		return 0, o.written
	}
	o.known = nil
	o.stopReader()
	if o.writer == nil {
		if err := o.startWriter(); err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(p) {
		part := p[n:min(n+maxPending, len(p))]
		if err := o.send(part); err != nil {
			return n, err
		}
		n += len(part)
		o.at += int64(len(part))
	}
	return n, nil
}

func (o *file) startWriter() error {
	cp, err := o.f.b.run(o.ctx, "exec 2>&1;LC_ALL=C;export LC_ALL\n"+writeScript, o.name, o.place(o.at))
	if err != nil {
		return o.f.b.explain(o.ctx, "write a file", err)
	}
	o.writer = &fileWriter{cp: cp, stop: closing(o.ctx, cp.Stdout)}
	return nil
}

// send gives the writing command its input. Where it does not take it, it has
// ended, and says why.
func (o *file) send(part []byte) error {
	sent := make(chan error, 1)
	own := bytes.Clone(part) // it may outlive this call
	go func(w io.Writer) {
		sent <- insist(o.ctx, func() error { _, err := w.Write(own); return err })
	}(o.writer.cp.Stdin)
	select {
	case err := <-sent:
		if err == nil {
			return nil
		}
		return o.failed(err)
	case <-o.ctx.Done():
		o.written = o.ctx.Err()
		return o.written
	}
}

// failed is why the writing command does not take its input: as a rule it has
// ended, and says so. One that waits for more is left, and ends by its timeout.
func (o *file) failed(err error) error {
	if !isGone(err) {
		o.writer.stop()
		o.writer = nil
	} else if ferr := o.flush(); ferr != nil {
		return ferr
	}
	o.written = o.f.b.explain(o.ctx, "write a file", err)
	return o.written
}

// flush ends the writing command and returns what went wrong with it.
func (o *file) flush() error {
	if o.writer == nil {
		return o.written
	}
	w := o.writer
	o.writer = nil
	defer w.stop()
	if err := o.ctx.Err(); err != nil {
		o.written = err
		return err
	}
	eof := make(chan error, 1)
	go func() {
		err := insist(o.ctx, w.cp.Stdin.Close)
		if err != nil && !isGone(err) {
			w.stop() // it waits for an end that does not come
		}
		eof <- err
	}()
	out, err := io.ReadAll(w.cp.Stdout)
	if err != nil {
		if lost := <-eof; lost != nil {
			err = lost
		}
		o.written = o.f.b.explain(o.ctx, "write a file", err)
		return o.written
	}
	i := bytes.LastIndexByte(out, '\n')
	if string(out[i+1:]) == "0" {
		return nil
	}
	if i < 0 {
		o.written = o.f.b.explain(o.ctx, "write a file", fmt.Errorf("%w: the command that wrote it has ended", driver.ErrUnavailable))
		return o.written
	}
	o.written = parseError(lastLine(out[:i]))
	return o.written
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
