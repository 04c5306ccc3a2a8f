// Package tarstream reads and writes the tar streams in which files travel to and
// from a sandbox's own tar.
//
// The formats are POSIX.1-2017 "pax" with GNU's sparse files of version 1.0, and
// the long-name members of GNU's own format, which is what busybox knows. Sources:
// POSIX pax(1), "pax Interchange Format" and "ustar Interchange Format"; the GNU
// tar manual, "Basic Tar Format" and "Storing Sparse Files".
package tarstream

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// The kinds of members, as their headers have them.
const (
	Regular  = '0'
	Hard     = '1'
	Symlink  = '2'
	Dir      = '5'
	contig   = '7'
	paxNext  = 'x'
	paxAll   = 'g'
	gnuName  = 'L'
	gnuLink  = 'K'
	maxOctal = 1<<33 - 1
	maxPax   = 1 << 20  // bytes of one extended header
	maxPath  = 64 << 10 // bytes of one name or link target

	blockSize = 512
)

// ErrFormat is matched by what is wrong with a stream itself.
var ErrFormat = errors.New("not a tar stream")

var (
	mtimeShape = regexp.MustCompile(`^-?[0-9]{1,18}(\.[0-9]{1,18})?$`)
	zeroBlock  = make([]byte, blockSize)
)

// Member is one entry of a stream with all its extended headers applied.
type Member struct {
	Kind     byte
	Name     string // as the stream has it
	Link     string // target of a symbolic link, or the name that a hard link repeats
	Mode     int64
	UID, GID uint32
	Mtime    tree.Time
	Size     int64 // bytes that follow in the stream
	Sparse   bool
	Real     int64 // a sparse file's length
}

// overrides are what extended headers say about the member after them.
type overrides struct {
	path, linkpath string
	size           int64 // -1: none
	mtime          *tree.Time
	major, minor   string
	sparseName     string
	realSize       int64
}

// parseHeader checks a header block and reads the fields used here. Owners are
// not.
func parseHeader(b []byte) (m Member, err error) {
	sum, err := parseNumber(b[148:156])
	if err != nil || sum != headerSum(b) {
		return m, fmt.Errorf("%w: wrong header checksum", ErrFormat)
	}
	m.Kind = b[156]
	if m.Kind == 0 || m.Kind == contig {
		m.Kind = Regular
	}
	m.Name, m.Link = cString(b[:100]), cString(b[157:257])
	if string(b[257:263]) == "ustar\x00" && b[345] != 0 {
		m.Name = cString(b[345:500]) + "/" + m.Name
	}
	if m.Mode, err = parseNumber(b[100:108]); err != nil {
		return m, err
	}
	if m.Size, err = parseNumber(b[124:136]); err != nil {
		return m, err
	}
	if m.Size < 0 || m.Size > 1<<62 {
		return m, fmt.Errorf("%w: bad size", ErrFormat)
	}
	m.Mtime.Sec, err = parseNumber(b[136:148])
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
		return parseOctal(b)
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
			return 0, fmt.Errorf("%w: number in header too large", ErrFormat)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// parseOctal reads digits with blanks before and blanks or a NUL behind them.
func parseOctal(b []byte) (n int64, err error) {
	b = bytes.TrimLeft(b, " ")
	for i, c := range b {
		switch {
		case c >= '0' && c <= '7':
			n = n<<3 | int64(c-'0')
		case (c == ' ' || c == 0) && (i == 0 || len(bytes.Trim(b[i:], " \x00")) == 0 || c == 0):
			return n, nil
		default:
			return 0, fmt.Errorf("%w: bad number in header", ErrFormat)
		}
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
	bad := fmt.Errorf("%w: bad extended header", ErrFormat)
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
		if !mtimeShape.MatchString(value) {
			return fmt.Errorf("%w: bad mtime", ErrFormat)
		}
		t, err := ParseTime(value)
		o.mtime = &t
		return err
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
			err = fmt.Errorf("%w: a sparse format other than 1.0", ErrFormat)
		}
	}
	return err
}

// ParseTime reads decimal seconds since 1970, with a fraction or without.
// Digits beyond nanoseconds are cut off.
func ParseTime(s string) (t tree.Time, err error) {
	whole, fraction, _ := strings.Cut(s, ".")
	t.Sec, err = strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return t, fmt.Errorf("%w: bad time", ErrFormat)
	}
	for i := range 9 {
		t.Nsec *= 10
		if i < len(fraction) {
			if fraction[i] < '0' || fraction[i] > '9' {
				return t, fmt.Errorf("%w: bad time", ErrFormat)
			}
			t.Nsec += int32(fraction[i] - '0')
		}
	}
	if strings.HasPrefix(whole, "-") && t.Nsec > 0 { // -1.25 is a quarter before -1
		t.Sec, t.Nsec = t.Sec-1, 1e9-t.Nsec
	}
	return t, nil
}

// appendTime is the inverse of ParseTime.
func appendTime(b []byte, t tree.Time) []byte {
	if t.Sec < 0 && t.Nsec > 0 {
		return fmt.Appendf(b, "-%d.%09d", -(t.Sec + 1), 1_000_000_000-t.Nsec)
	}
	if t.Nsec == 0 {
		return strconv.AppendInt(b, t.Sec, 10)
	}
	return fmt.Appendf(b, "%d.%09d", t.Sec, t.Nsec)
}

func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%w: bad length", ErrFormat)
	}
	return int64(n), nil
}

// applyTo makes m what the extended headers say it is.
func (o *overrides) applyTo(m *Member) error {
	if o.path != "" {
		m.Name = o.path
	}
	if o.linkpath != "" {
		m.Link = o.linkpath
	}
	if o.size >= 0 {
		m.Size = o.size
	}
	if o.mtime != nil {
		m.Mtime = *o.mtime
	}
	if o.major == "" && o.minor == "" && o.sparseName == "" {
		return nil
	}
	if o.major != "1" || o.minor != "0" || o.sparseName == "" || m.Kind != Regular {
		return fmt.Errorf("%w: a sparse format other than 1.0", ErrFormat)
	}
	m.Sparse, m.Name, m.Real = true, o.sparseName, o.realSize
	return nil
}

// FormatTime is the inverse of ParseTime.
func FormatTime(t tree.Time) string { return string(appendTime(nil, t)) }
