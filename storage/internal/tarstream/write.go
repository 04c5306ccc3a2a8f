package tarstream

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Dialect is what the tar that will read a stream understands.
type Dialect int

const (
	// Posix is pax headers and sparse files.
	Posix Dialect = iota
	// Busybox is GNU long names; neither of the above.
	Busybox
)

// Writer writes an archive.
type Writer struct {
	out     io.Writer
	dialect Dialect
	head    []byte // reused
	left    int64  // of the member's bytes
	pad     int64
}

// NewWriter writes to out, which had better be buffered.
func NewWriter(out io.Writer, d Dialect) *Writer { return &Writer{out: out, dialect: d} }

// Begin writes the header of m, whose Size bytes are to be written before the
// next one. Names are written as they are, so they should begin with "./". A sparse
// member has its length in Real and its data in runs: Write gives the runs' bytes
// and Hole what lies between them, in order, and busybox gets the holes filled.
func (w *Writer) Begin(m *Member, runs []Run) error {
	if err := w.finish(); err != nil {
		return err
	}
	h := *m
	var list []byte
	if h.Sparse && w.dialect == Busybox {
		h.Sparse, h.Size = false, h.Real
	}
	if h.Sparse {
		list = appendMap(nil, runs)
		h.Size = int64(len(list))
		for _, r := range runs {
			h.Size += r.Len
		}
	}
	w.head = h.appendHeader(w.head[:0], w.dialect)
	w.head = append(w.head, list...)
	w.left, w.pad = h.Size-int64(len(list)), padding(h.Size)
	_, err := w.out.Write(w.head)
	return err
}

// Write writes bytes of the member.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("%d bytes more than the member has", int64(len(p))-w.left)
	}
	n, err := w.out.Write(p)
	w.left -= int64(n)
	return n, err
}

// Hole passes over n bytes of a sparse member.
func (w *Writer) Hole(n int64) error {
	if w.dialect == Posix {
		return nil
	}
	var block [32 << 10]byte
	for n > 0 {
		k, err := w.Write(block[:min(n, int64(len(block)))])
		n -= int64(k)
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) finish() error {
	if w.left > 0 {
		return fmt.Errorf("%d bytes of the member before are missing", w.left)
	}
	_, err := w.out.Write(zeroBlock[:w.pad])
	w.pad = 0
	return err
}

// Close writes the end of the archive. It does not close the writer below.
func (w *Writer) Close() error {
	if err := w.finish(); err != nil {
		return err
	}
	_, err := w.out.Write(make([]byte, 2*blockSize))
	return err
}

// appendMap appends the map that starts a sparse member's bytes.
func appendMap(b []byte, runs []Run) []byte {
	b = fmt.Appendf(b, "%d\n", len(runs))
	for _, r := range runs {
		b = fmt.Appendf(b, "%d\n%d\n", r.Off, r.Len)
	}
	return append(b, zeroBlock[:padding(int64(len(b)))]...)
}

// appendHeader appends the header blocks for m: the pax or GNU members that
// precede it, and its own.
func (m *Member) appendHeader(b []byte, d Dialect) []byte {
	name := m.Name
	if d == Busybox {
		b = appendGNULong(b, gnuName, name)
		b = appendGNULong(b, gnuLink, m.Link)
		return appendBlock(b, m, name, "ustar  \x00")
	}
	var records []byte
	if m.Sparse {
		records = appendPax(records, "GNU.sparse.major", "1")
		records = appendPax(records, "GNU.sparse.minor", "0")
		records = appendPax(records, "GNU.sparse.name", name)
		records = appendPax(records, "GNU.sparse.realsize", strconv.FormatInt(m.Real, 10))
		name = "./GNUSparseFile.0/" + name[strings.LastIndexByte(name, '/')+1:]
	}
	if len(name) > 100 {
		records = appendPax(records, "path", name)
	}
	if len(m.Link) > 100 {
		records = appendPax(records, "linkpath", m.Link)
	}
	if m.Size > maxOctal {
		records = appendPax(records, "size", strconv.FormatInt(m.Size, 10))
	}
	if m.Mtime.Nsec != 0 || m.Mtime.Sec < 0 || m.Mtime.Sec > maxOctal {
		records = appendPax(records, "mtime", string(appendTime(nil, m.Mtime)))
	}
	if len(records) > 0 {
		x := &Member{Kind: paxNext, Mode: 0o644, Size: int64(len(records))}
		b = appendBlock(b, x, "././@PaxHeader", "ustar\x0000")
		b = appendPadded(b, records)
	}
	return appendBlock(b, m, name, "ustar\x0000")
}

func appendPax(b []byte, key, value string) []byte {
	n := len(key) + len(value) + 3 // blank, equals sign, newline
	total := n + len(strconv.Itoa(n))
	if len(strconv.Itoa(total)) != len(strconv.Itoa(n)) {
		total = n + len(strconv.Itoa(total))
	}
	b = strconv.AppendInt(b, int64(total), 10)
	b = append(append(append(b, ' '), key...), '=')
	return append(append(b, value...), '\n')
}

func appendGNULong(b []byte, kind byte, value string) []byte {
	if len(value) < 100 {
		return b
	}
	long := &Member{Kind: kind, Mode: 0o644, Size: int64(len(value) + 1)}
	b = appendBlock(b, long, "././@LongLink", "ustar  \x00")
	return appendPadded(b, append([]byte(value), 0))
}

func appendPadded(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, zeroBlock[:padding(int64(len(data)))]...)
}

// appendBlock appends m's header block. Fields too long for it are cut, as they
// stand in full in the header before it.
func appendBlock(b []byte, m *Member, name, magic string) []byte {
	start := len(b)
	b = append(b, zeroBlock...)
	h := b[start:]
	seconds := m.Mtime.Sec
	if seconds < 0 || seconds > maxOctal {
		seconds = 0
	}
	copy(h[:100], name)
	putNumber(h[100:108], m.Mode)
	putNumber(h[108:116], int64(m.UID))
	putNumber(h[116:124], int64(m.GID))
	putNumber(h[124:136], m.Size)
	putNumber(h[136:148], seconds)
	h[156] = m.Kind
	copy(h[157:257], m.Link)
	copy(h[257:265], magic)
	putOctal(h[148:155], headerSum(h))
	h[155] = ' '
	return b
}

// putNumber writes octal digits and a NUL, or base 256 where they do not fit.
func putNumber(field []byte, n int64) {
	if n < 1<<(3*(len(field)-1)) {
		putOctal(field, n)
		return
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] |= 0x80
}

func putOctal(field []byte, n int64) {
	field[len(field)-1] = 0
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}
