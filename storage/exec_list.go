package storage

import (
	"bufio"
	"bytes"
	"context"
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
