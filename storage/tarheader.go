package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// The tar formats read and written here are POSIX.1-2017 "pax" with GNU's sparse
// files of version 1.0, and the long-name members of GNU's own format, which is
// what busybox knows. Sources: POSIX pax(1), "pax Interchange Format" and "ustar
// Interchange Format"; the GNU tar manual, "Basic Tar Format" and "Storing
// Sparse Files".
const (
	blockSize   = 512
	maxPax      = 1 << 20  // bytes of one extended header
	maxPath     = 64 << 10 // bytes of one name or link target
	maxOctal    = 1<<33 - 1
	kindRegular = '0'
	kindHard    = '1'
	kindSymlink = '2'
	kindChar    = '3'
	kindBlock   = '4'
	kindDir     = '5'
	kindFIFO    = '6'
	kindContig  = '7'
	kindPax     = 'x'
	kindGNUName = 'L'
	kindGNULink = 'K'
)

var (
	errNotTar  = errors.New("not a tar stream")
	mtimeShape = regexp.MustCompile(`^-?[0-9]{1,18}(\.[0-9]{1,18})?$`)
	zeroBlock  = make([]byte, blockSize)
)

// member is one entry of an archive with all its extended headers applied.
type member struct {
	kind   byte
	name   string // relative to the root without "./"; "" is the root itself
	link   string // target of a symbolic link, or a name for a hard link
	mode   int64
	mtime  string // decimal seconds since 1970
	size   int64  // bytes that follow in the stream
	sparse bool
	real   int64 // a sparse file's length
}

// overrides are what extended headers say about the member after them.
type overrides struct {
	set            bool
	path, linkpath string
	size           int64 // -1: none
	mtime          string
	major, minor   string
	sparseName     string
	realSize       int64
}

// parseHeader checks a header block and reads the fields used here. Owners are
// not: a workspace belongs to whoever restores it.
func parseHeader(b []byte) (m member, err error) {
	sum, err := parseNumber(b[148:156])
	if err != nil || sum != headerSum(b) {
		return m, fmt.Errorf("%w: wrong header checksum", errNotTar)
	}
	m.kind = b[156]
	if m.kind == 0 {
		m.kind = kindRegular
	}
	m.name, m.link = cString(b[:100]), cString(b[157:257])
	if string(b[257:263]) == "ustar\x00" && b[345] != 0 {
		m.name = cString(b[345:500]) + "/" + m.name
	}
	if m.mode, err = parseNumber(b[100:108]); err != nil {
		return m, err
	}
	if m.size, err = parseNumber(b[124:136]); err != nil {
		return m, err
	}
	if m.size < 0 || m.size > 1<<62 {
		return m, fmt.Errorf("%w: bad size", errNotTar)
	}
	seconds, err := parseNumber(b[136:148])
	m.mtime = strconv.FormatInt(seconds, 10)
	return m, err
}

func headerSum(b []byte) (sum int64) {
	for i, c := range b[:blockSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return sum
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// parseNumber reads an octal field, or a base-256 one when its first bit is set.
func parseNumber(b []byte) (int64, error) {
	if b[0]&0x80 == 0 {
		s := strings.Trim(cString(b), " ")
		if s == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(s, 8, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: bad number in header", errNotTar)
		}
		return n, nil
	}
	negative := b[0]&0x40 != 0
	var n int64
	if negative {
		n = -1
	}
	for i, c := range b {
		if i == 0 && !negative {
			c &= 0x7f
		}
		if n > math.MaxInt64>>8 || n < math.MinInt64>>8 {
			return 0, fmt.Errorf("%w: number in header too large", errNotTar)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// parsePax applies the records of an extended header to o. Records that are not
// about what a version keeps (owners, access times, extended attributes) are
// left out.
func (o *overrides) parsePax(data []byte) error {
	for len(data) > 0 {
		key, value, rest, err := paxRecord(data)
		if err != nil {
			return err
		}
		if err := o.apply(key, value); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// paxRecord splits off one "length key=value\n".
func paxRecord(data []byte) (key, value string, rest []byte, err error) {
	bad := fmt.Errorf("%w: bad extended header", errNotTar)
	digits, _, ok := bytes.Cut(data, []byte(" "))
	n, convErr := strconv.Atoi(string(digits))
	if !ok || convErr != nil || n <= len(digits)+1 || n > len(data) || data[n-1] != '\n' {
		return "", "", nil, bad
	}
	key, value, ok = strings.Cut(string(data[len(digits)+1:n-1]), "=")
	if !ok || key == "" {
		return "", "", nil, bad
	}
	return key, value, data[n:], nil
}

func (o *overrides) apply(key, value string) (err error) {
	switch key {
	case "path":
		o.path = value
	case "linkpath":
		o.linkpath = value
	case "size":
		o.size, err = parseLength(value)
	case "mtime":
		if o.mtime = value; !mtimeShape.MatchString(value) {
			err = fmt.Errorf("%w: bad mtime", errNotTar)
		}
	case "GNU.sparse.major":
		o.major = value
	case "GNU.sparse.minor":
		o.minor = value
	case "GNU.sparse.name":
		o.sparseName = value
	case "GNU.sparse.realsize":
		o.realSize, err = parseLength(value)
	default:
		if strings.HasPrefix(key, "GNU.sparse.") {
			err = fmt.Errorf("%w: a sparse format other than 1.0", errNotTar)
		}
	}
	return err
}

func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%w: bad length", errNotTar)
	}
	return int64(n), nil
}

// applyTo makes m what the extended headers say it is.
func (o *overrides) applyTo(m *member) error {
	if o.path != "" {
		m.name = o.path
	}
	if o.linkpath != "" {
		m.link = o.linkpath
	}
	if o.size >= 0 {
		m.size = o.size
	}
	if o.mtime != "" {
		m.mtime = o.mtime
	}
	if o.major == "" && o.minor == "" && o.sparseName == "" {
		return nil
	}
	if o.major != "1" || o.minor != "0" || o.sparseName == "" || m.kind != kindRegular {
		return fmt.Errorf("%w: a sparse format other than 1.0", errNotTar)
	}
	m.sparse, m.name, m.real = true, o.sparseName, o.realSize
	return nil
}

// dialect is what the tar that will read a stream understands.
type dialect int

const (
	posix   dialect = iota // pax headers, sparse files
	busybox                // GNU long names; neither of the above
)

// appendHeader appends the header blocks for m: the pax or GNU members that
// precede it, and its own.
func (m *member) appendHeader(b []byte, d dialect) []byte {
	name := "./" + m.name
	if m.kind == kindDir && m.name != "" {
		name += "/"
	}
	link := m.link
	if m.kind == kindHard {
		link = "./" + link
	}
	if d == busybox {
		b = appendGNULong(b, kindGNUName, name)
		b = appendGNULong(b, kindGNULink, link)
		return appendBlock(b, m, name, link, "ustar  \x00")
	}
	var records []byte
	if m.sparse {
		records = appendPax(records, "GNU.sparse.major", "1")
		records = appendPax(records, "GNU.sparse.minor", "0")
		records = appendPax(records, "GNU.sparse.name", name)
		records = appendPax(records, "GNU.sparse.realsize", strconv.FormatInt(m.real, 10))
		name = "./GNUSparseFile.0/" + m.name[strings.LastIndexByte(m.name, '/')+1:]
	}
	if len(name) > 100 {
		records = appendPax(records, "path", name)
	}
	if len(link) > 100 {
		records = appendPax(records, "linkpath", link)
	}
	if m.size > maxOctal {
		records = appendPax(records, "size", strconv.FormatInt(m.size, 10))
	}
	if _, exact := m.seconds(); !exact {
		records = appendPax(records, "mtime", m.mtime)
	}
	if len(records) > 0 {
		x := &member{kind: kindPax, mode: 0o644, mtime: "0", size: int64(len(records))}
		b = appendBlock(b, x, "././@PaxHeader", "", "ustar\x0000")
		b = appendPadded(b, records)
	}
	return appendBlock(b, m, name, link, "ustar\x0000")
}

// seconds gives the whole seconds of mtime that fit a header block, and whether
// that says it all.
func (m *member) seconds() (int64, bool) {
	whole, _, fraction := strings.Cut(m.mtime, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || n > maxOctal {
		return 0, false
	}
	return n, !fraction
}

func appendPax(b []byte, key, value string) []byte {
	n := len(key) + len(value) + 3 // blank, equals sign, newline
	total := n + len(strconv.Itoa(n))
	if len(strconv.Itoa(total)) != len(strconv.Itoa(n)) {
		total = n + len(strconv.Itoa(total))
	}
	return fmt.Appendf(b, "%d %s=%s\n", total, key, value)
}

func appendGNULong(b []byte, kind byte, value string) []byte {
	if len(value) < 100 {
		return b
	}
	long := &member{kind: kind, mode: 0o644, mtime: "0", size: int64(len(value) + 1)}
	b = appendBlock(b, long, "././@LongLink", "", "ustar  \x00")
	return appendPadded(b, append([]byte(value), 0))
}

func appendPadded(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, zeroBlock[:padding(int64(len(data)))]...)
}

func padding(size int64) int64 { return -size & (blockSize - 1) }

// appendBlock appends m's header block. Fields too long for it are cut, as they
// stand in full in the header before it.
func appendBlock(b []byte, m *member, name, link, magic string) []byte {
	start := len(b)
	b = append(b, zeroBlock...)
	h := b[start:]
	seconds, _ := m.seconds()
	copy(h[:100], name)
	copy(h[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00", m.mode, 0, 0))
	putNumber(h[124:136], m.size)
	putNumber(h[136:148], seconds)
	h[156] = m.kind
	copy(h[157:257], link)
	copy(h[257:265], magic)
	copy(h[148:], fmt.Sprintf("%06o\x00 ", headerSum(h)))
	return b
}

func putNumber(field []byte, n int64) {
	if n <= maxOctal {
		copy(field, fmt.Sprintf("%011o\x00", n))
		return
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] |= 0x80
}
