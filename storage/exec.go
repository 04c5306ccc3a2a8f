package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// streamBuffer is the size of the buffers between this process and a sandbox's, in
// bytes.
const streamBuffer = 256 << 10

// sandboxed is a place in a sandbox, reached by commands alone.
type sandboxed struct {
	v   *Volume
	sb  Runner
	dir string
}

// errStopped is what a stage of a pipeline sees when the one after it gave up.
var errStopped = errors.New("stopped reading")

// run runs a script, and parse on its output. parse reads to the output's end, or
// its error is the result.
func (s *sandboxed) run(ctx context.Context, stdin io.Reader, parse func(*bufio.Reader) error, script string, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	parsed := make(chan error, 1)
	go func() {
		err := parse(bufio.NewReaderSize(r, streamBuffer))
		if err != nil {
			cancel(err)
		}
		_ = r.CloseWithError(errStopped) // never fails
		parsed <- err
	}()
	err := s.sb.Run(ctx, stdin, w, "sh", append([]string{"-c", script, "sh", s.dir}, args...)...)
	if err == nil {
		_ = w.Close()
	} else {
		_ = w.CloseWithError(err)
	}
	parseErr := <-parsed
	if parseErr != nil && (err == nil || !errors.Is(parseErr, err)) {
		return parseErr
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

func (s *sandboxed) list(ctx context.Context) (*listing, error) {
	l := &lister{v: s.v}
	err := s.run(ctx, nil, func(r *bufio.Reader) error {
		parseErr := l.parse(r)
		said, last, err := status(r)
		switch {
		case err != nil && parseErr != nil:
			return parseErr
		case err != nil:
			return err
		case last == "absent":
			return fs.ErrNotExist
		case last == "failed":
			return errors.New(clipTail(said))
		case !onlyGone(said):
			return fmt.Errorf("%s: %s", last, clipTail(said))
		}
		return parseErr
	}, listScript)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.dir, err)
	}
	return l.finish()
}

// onlyGone reports whether all that a tool said is that something had vanished
// since it saw its name. Where it said more than is passed on, nobody knows.
func onlyGone(said string) bool {
	if len(said) >= maxSaid-utf8.UTFMax {
		return false
	}
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasSuffix(line, "No such file or directory") && !strings.HasPrefix(line, "find ") {
			return false
		}
	}
	return true
}

// errNoList is an output of listScript that does not begin with a listing.
var errNoList = errors.New("no listing")

// parse reads the output of listScript up to the end of the records.
func (l *lister) parse(r *bufio.Reader) error {
	head, err := r.Peek(6)
	if err != nil || string(head) != "gnu " && string(head[:4]) != "gnu " && string(head) != "plain " {
		return errNoList // what follows says why
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return cutShort(err)
	}
	words := strings.Fields(line)
	if len(words) < 3 {
		return errNoList
	}
	if words[0] == "gnu" && words[1] == "-" {
		if words, err = l.parseNow(r, words); err != nil {
			return err
		}
	} else if l.out.now, err = clock(words); err != nil {
		return err
	}
	one := l.gnu
	if words[0] == "plain" {
		one, l.out.cut = l.plain, true
	}
	for {
		f, kind, err := one(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			if f.Path == "" && words[2] != "-" {
				l.out.origin = fmt.Sprintf("%s %d %d", words[2], f.dev, f.ino)
			}
			err = l.add(kind, f)
		}
		if err != nil {
			return cutShort(err)
		}
	}
}

// parseNow reads what follows a first line without a time: a record that tells it,
// or, where find was not GNU's, another first line, which it returns.
func (l *lister) parseNow(r *bufio.Reader, words []string) ([]string, error) {
	switch next, err := r.Peek(4); {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case string(next) == "now ":
		text, err := readUntil(r, "\x00")
		if err != nil {
			return nil, err
		}
		l.out.now, err = tarstream.ParseTime(string(text[len("now "):]))
		return words, err
	case string(next) != "plai": // a record begins with one letter
		return words, nil
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, cutShort(err)
	}
	if words = strings.Fields(line); len(words) < 3 || words[0] != "plain" {
		return nil, errNoList
	}
	l.out.now, err = clock(words)
	return words, err
}

// clock reads the time from the first line of a listing: "KIND SECONDS.FRACTION
// BOOT [SECONDS DATE TIME.FRACTION ZONE]", where a date without fractions has
// anything in their place.
func clock(words []string) (tree.Time, error) {
	whole, fraction, _ := strings.Cut(words[1], ".")
	if _, err := strconv.ParseUint(fraction, 10, 64); err == nil {
		return tarstream.ParseTime(words[1])
	}
	now, err := tarstream.ParseTime(whole)
	if err != nil || len(words) < 6 {
		return now, err
	}
	_, fraction, _ = strings.Cut(words[5], ".")
	if exact, err := tarstream.ParseTime(words[3] + "." + fraction); err == nil && exact.Sec >= now.Sec && exact.Sec <= now.Sec+1 {
		return exact, nil
	}
	return now, nil
}

// maxRecord bounds what one entry of a listing may take.
const maxRecord = 1 << 20

// readUntil reads up to sep, which is not part of what it returns. The end of the
// input before that is io.ErrUnexpectedEOF.
func readUntil(r *bufio.Reader, sep string) ([]byte, error) {
	var out []byte
	for {
		part, err := r.ReadSlice(sep[len(sep)-1])
		if out == nil && err == nil && bytes.HasSuffix(part, []byte(sep)) {
			return part[:len(part)-len(sep)], nil // valid until the next read
		}
		out = append(out, part...)
		switch {
		case len(out) > maxRecord:
			return nil, errors.New("an entry of the listing is too long")
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, cutShort(err)
		case bytes.HasSuffix(out, []byte(sep)):
			return out[:len(out)-len(sep)], nil
		}
	}
}

var errBadRecord = errors.New("an entry of the listing cannot be read")

// numbers takes the fields of a record apart.
type numbers struct {
	text string
	bad  bool
}

func (n *numbers) word() string {
	word, rest, ok := strings.Cut(n.text, " ")
	if !ok {
		n.bad = true
	}
	n.text = rest
	return word
}

func (n *numbers) uint(base int) uint64 {
	x, err := strconv.ParseUint(n.word(), base, 64)
	if err != nil {
		n.bad = true
	}
	return x
}

func (n *numbers) time() tree.Time {
	t, err := tarstream.ParseTime(n.word())
	if err != nil {
		n.bad = true
	}
	return t
}

// gnu reads what find -printf wrote of one entry.
func (l *lister) gnu(r *bufio.Reader) (*found, byte, error) {
	text, err := readUntil(r, "\x00")
	if err != nil {
		return nil, 0, err
	}
	if len(text) == 0 {
		return nil, 0, io.EOF
	}
	n := &numbers{text: string(text)}
	f := new(found)
	kind := n.word()
	f.Mode = uint16(n.uint(8) & 0o7777)
	f.Size = int64(min(n.uint(10), 1<<62))
	f.Mtime, f.ctime = n.time(), n.time()
	f.links, f.ino, f.dev = n.uint(10), n.uint(10), n.uint(10)
	f.UID, f.GID = uint32(n.uint(10)), uint32(n.uint(10))
	f.sparse = n.uint(10)*512 < uint64(f.Size)
	f.Path = n.text
	target, err := readUntil(r, "\x00")
	if err != nil {
		return nil, 0, err
	}
	if n.bad || len(kind) != 1 {
		return nil, 0, errBadRecord
	}
	f.Link = string(target)
	return f, kind[0], nil
}

// plain reads what stat wrote of one entry.
func (l *lister) plain(r *bufio.Reader) (*found, byte, error) {
	first, err := readUntil(r, "\n")
	if err != nil {
		return nil, 0, err
	}
	if string(first) == "//" {
		return nil, 0, io.EOF
	}
	text := slices.Clone(first)
	for {
		more, err := readUntil(r, "\n")
		if err != nil {
			return nil, 0, err
		}
		if string(more) == "//" { // no name can hold a line of two slashes
			break
		}
		if len(text) > maxRecord {
			return nil, 0, errBadRecord
		}
		text = append(append(text, '\n'), more...)
	}
	n := &numbers{text: string(text)}
	f := new(found)
	mode := n.uint(16)
	f.Size = int64(min(n.uint(10), 1<<62))
	var fine bool
	f.Mtime, f.ctime, fine = n.stamps()
	f.links, f.ino, f.dev = n.uint(10), n.uint(10), n.uint(10)
	f.UID, f.GID = uint32(n.uint(10)), uint32(n.uint(10))
	f.sparse = n.uint(10)*512 < uint64(f.Size)
	f.Mode = uint16(mode & 0o7777)
	if n.bad {
		return nil, 0, errBadRecord
	}
	f.Path = strings.TrimPrefix(strings.TrimPrefix(n.text, "."), "/")
	l.out.coarse = l.out.coarse || f.Path == "" && !fine
	kind := kindOf(mode)
	return f, kind, f.quoted(r, kind, n.text)
}

// quoted reads what stat says for %N: the name, and for a link "'NAME' -> 'TARGET'"
// with a target as long as the link's size.
func (f *found) quoted(r *bufio.Reader, kind byte, name string) error {
	before, size, after := name, int64(0), "\n//\n"
	if kind == 'l' {
		before, size, after = "'"+name+"' -> '", f.Size, "'\n//\n"
	}
	if size > tree.MaxLink {
		return errBadRecord
	}
	text := make([]byte, int64(len(before)+len(after))+size)
	if _, err := io.ReadFull(r, text); err != nil {
		return cutShort(err)
	}
	target, ok := bytes.CutPrefix(text, []byte(before))
	if target, ok2 := bytes.CutSuffix(target, []byte(after)); ok && ok2 {
		f.Link = string(target)
		return nil
	}
	return errBadRecord
}

// stamps reads "SECONDS TEXT|SECONDS TEXT|", where a text may hold a fraction of
// the second; fine says that they do.
func (n *numbers) stamps() (mtime, ctime tree.Time, fine bool) {
	fine = true
	for _, t := range []*tree.Time{&mtime, &ctime} {
		text, rest, ok := strings.Cut(n.text, "|")
		n.text = rest
		seconds, human, _ := strings.Cut(text, " ")
		_, fraction, has := strings.Cut(human, ".")
		fraction, _, _ = strings.Cut(fraction, " ")
		var err error
		if t.Sec, err = strconv.ParseInt(seconds, 10, 64); err != nil || !ok {
			n.bad = true
		}
		if part, err := tarstream.ParseTime("0." + fraction); err == nil {
			t.Nsec = part.Nsec
		}
		fine = fine && has
	}
	return mtime, ctime, fine
}

// kindOf gives find's letter for a file's mode: the numbers are those of Linux.
func kindOf(mode uint64) byte {
	switch mode & 0o170000 {
	case 0o100000:
		return 'f'
	case 0o040000:
		return 'd'
	case 0o120000:
		return 'l'
	}
	return '?'
}

// cutShort tells a stream that ended too early from one that ended.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *sandboxed) read(ctx context.Context, want []*found, in *intake) (steady bool, err error) {
	var plain, sparse, large []*found
	for _, f := range want {
		if f.Kind == tree.File && s.v.goesDirect(f.Size, f.sparse) {
			large = append(large, f)
		} else if f.sparse {
			sparse = append(sparse, f)
		} else {
			plain = append(plain, f)
		}
	}
	steady, err = s.readSome(ctx, plain, in, "plain")
	if err != nil {
		return false, err
	}
	alsoSteady, err := s.readSome(ctx, sparse, in, "sparse")
	steady = steady && alsoSteady
	if len(large) > 0 && err == nil {
		_, err = PresignerOf(s.v.bucket)
	}
	for _, f := range large {
		if err != nil {
			return false, err
		}
		alsoSteady, err = s.readDirect(ctx, f, in)
		steady = steady && alsoSteady
	}
	return steady, err
}

// readSome reads files of which all have holes, or none.
func (s *sandboxed) readSome(ctx context.Context, want []*found, in *intake, kind string) (steady bool, err error) {
	if len(want) == 0 {
		return true, nil
	}
	var names bytes.Buffer
	byName := make(map[string]*found, len(want))
	for _, f := range want {
		names.WriteString("./" + f.Path + "\x00")
		byName[f.Path] = f
	}
	err = s.run(ctx, &names, func(r *bufio.Reader) error {
		same, parseErr := takeArchive(r, byName, in)
		if parseErr != nil && in.ctx.Err() != nil {
			return parseErr
		}
		said, last, err := status(r)
		switch {
		case err != nil:
			return reason(parseErr, err)
		case last == "failed":
			return errors.New(clipTail(said))
		case parseErr != nil:
			return withWords(parseErr, said)
		}
		// GNU tar says with 1 that something changed. With more it could not read
		// something, which matters if that is still there at the next listing.
		steady = same && last == "gnu 0"
		if !steady && !strings.HasPrefix(last, "gnu ") && !strings.HasPrefix(last, "other ") {
			return fmt.Errorf("tar: %s", clipTail(said))
		}
		in.said = clipTail(said)
		return nil
	}, readScript, kind)
	if err != nil {
		return false, fmt.Errorf("read files in %s: %w", s.dir, err)
	}
	return steady, nil
}

// takeArchive hands the members of a stream of archives to in. What was not asked
// for is passed over. It reports whether all came, as they were listed.
func takeArchive(r *bufio.Reader, byName map[string]*found, in *intake) (same bool, err error) {
	tr := tarstream.NewReader(r, statusMark)
	left, same := len(byName), true
	for {
		m, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return same && left == 0, nil
		}
		if err != nil {
			return false, err
		}
		f := byName[strings.TrimPrefix(m.Name, "./")]
		if f == nil || f.read != nil {
			continue
		}
		left--
		switch {
		case m.Kind == tarstream.Symlink && f.Kind == tree.Symlink:
			in.link(f, m.Link)
		case m.Kind == tarstream.Regular && f.Kind == tree.File:
			if err := takeFile(tr, m, f, in); err != nil {
				return false, err
			}
			same = same && f.read.size == f.Size
		default:
			same = false // it is something else by now
		}
	}
}

func takeFile(tr *tarstream.Reader, m *tarstream.Member, f *found, in *intake) error {
	in.begin(f)
	defer in.end()
	if !m.Sparse {
		return in.data(tr, m.Size)
	}
	runs, err := tr.Runs(m)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, run := range runs {
		in.hole(run.Off - at)
		if err := in.data(tr, run.Len); err != nil {
			return err
		}
		at = run.Off + run.Len
	}
	in.hole(m.Real - at)
	return nil
}

func (s *sandboxed) begin(ctx context.Context) (stage, error) {
	id := strings.ToLower(rand.Text())
	kind, err := runScript(ctx, s.sb, nil, prepareScript, s.dir, id)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.dir, err)
	}
	st := &sandboxStage{sandboxed: s, id: id, dialect: tarstream.Posix}
	if kind != "gnu" {
		st.dialect = tarstream.Busybox
	}
	return st, nil
}

// sandboxStage is a restore that is being prepared in a sandbox.
type sandboxStage struct {
	*sandboxed
	id      string
	dialect tarstream.Dialect
}

// feed runs a script on the archive that write makes. When the script fails, stop is
// to make write return.
func (s *sandboxStage) feed(ctx context.Context, write func(*tarstream.Writer) error, stop func(error), script string, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		out := bufio.NewWriterSize(w, streamBuffer)
		tw := tarstream.NewWriter(out, s.dialect)
		err := write(tw)
		if err == nil {
			err = errors.Join(tw.Close(), out.Flush())
		}
		if err != nil && !errors.Is(err, errStopped) {
			// A command may take a broken stdin for its end, so end it too.
			cancel(err)
		}
		_ = w.CloseWithError(err) // never fails
		written <- err
	}()
	text, runErr := runScript(ctx, s.sb, r, script, append([]string{s.dir, s.id}, args...)...)
	_ = r.CloseWithError(errStopped)
	if runErr != nil {
		stop(errStopped) // frees a writer that waits for the bucket
	}
	err := <-written
	switch {
	case err != nil && !errors.Is(err, errStopped) && (runErr == nil || errors.Is(context.Cause(ctx), err)):
		return err
	case runErr != nil:
		return runErr
	case err != nil:
		return withWords(err, text)
	}
	return nil
}

func (s *sandboxStage) fill(ctx context.Context, entries []*tree.Entry, out *outlet) error {
	owners := "no"
	if s.v.opts.Owners {
		owners = "owners"
	}
	for _, e := range entries { // first, as hard links may lead to them
		if s.direct(e) {
			if err := s.fetchDirect(ctx, e, out.meter); err != nil {
				return fmt.Errorf("write files to %s: %w", s.dir, err)
			}
			out.done(e)
		}
	}
	err := s.feed(ctx, func(w *tarstream.Writer) error {
		for _, e := range entries {
			if s.direct(e) {
				continue
			}
			if err := s.write(w, e, out); err != nil {
				return err
			}
		}
		return nil
	}, out.stop, fillScript, owners)
	if err != nil {
		return fmt.Errorf("write files to %s: %w", s.dir, err)
	}
	return nil
}

func (s *sandboxStage) direct(e *tree.Entry) bool { return s.v.directly(e) }

// memberOf gives the header for an entry.
func memberOf(e *tree.Entry) *tarstream.Member {
	m := &tarstream.Member{Name: "./" + e.Path, Link: e.Link, Mode: int64(e.Mode), UID: e.UID, GID: e.GID, Mtime: e.Mtime}
	switch e.Kind {
	case tree.Dir:
		m.Kind = tarstream.Dir
		if e.Path != "" {
			m.Name += "/"
		}
	case tree.Symlink:
		m.Kind = tarstream.Symlink
	case tree.Hardlink:
		m.Kind, m.Link = tarstream.Hard, "./"+e.Link
	case tree.File:
		m.Kind, m.Size, m.Real = tarstream.Regular, e.Size, e.Size
	}
	return m
}

func (s *sandboxStage) write(w *tarstream.Writer, e *tree.Entry, out *outlet) error {
	m := memberOf(e)
	if e.Kind == tree.Dir {
		m.Mode |= 0o700 // its own comes when nothing in it will change
	}
	return writeEntry(w, m, e, out)
}

// writeEntry writes an entry as m, with its contents.
func writeEntry(w *tarstream.Writer, m *tarstream.Member, e *tree.Entry, out *outlet) error {
	var runs []tarstream.Run
	at := int64(0)
	for _, c := range e.Chunks {
		switch {
		case c.Blob == nil:
			m.Sparse = true
		case len(runs) > 0 && runs[len(runs)-1].Off+runs[len(runs)-1].Len == at:
			runs[len(runs)-1].Len += c.Size
		default:
			runs = append(runs, tarstream.Run{Off: at, Len: c.Size})
		}
		at += c.Size
	}
	if m.Sparse && (len(runs) == 0 || runs[len(runs)-1].Off+runs[len(runs)-1].Len < e.Size) {
		runs = append(runs, tarstream.Run{Off: e.Size}) // as GNU tar marks the end
	}
	if err := w.Begin(m, runs); err != nil {
		return err
	}
	for _, c := range e.Chunks {
		if c.Blob == nil {
			if err := w.Hole(c.Size); err != nil {
				return err
			}
			continue
		}
		data, err := out.next(c.Blob)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	out.done(e)
	return nil
}

func (s *sandboxStage) apply(ctx context.Context, p *plan) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
	defer cancel()
	err := s.feed(ctx, func(w *tarstream.Writer) error {
		for _, f := range p.files(s.dialect) {
			m := &tarstream.Member{Kind: tarstream.Regular, Name: "./" + f.name, Mode: 0o600, Size: int64(len(f.data))}
			if err := w.Begin(m, nil); err != nil {
				return err
			}
			if _, err := w.Write(f.data); err != nil {
				return err
			}
		}
		return nil
	}, func(error) {}, applyScript)
	if err != nil {
		return fmt.Errorf("exchange files in %s: %w", s.dir, err)
	}
	return nil
}

func (s *sandboxStage) drop(ctx context.Context) (finished bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
	defer cancel()
	end, err := runScript(ctx, s.sb, nil, cleanScript, s.dir, s.id)
	if err != nil {
		return false, fmt.Errorf("clean up %s: %w", s.dir, err)
	}
	return end == "finished", nil
}
