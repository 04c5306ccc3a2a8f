package storage

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// A directory and the file "a" in it, as find tells of them, and as stat does.
const (
	gnuRecords   = "d 755 0 1.5 1.5 2 1 7 0 0 0 \x00\x00f 644 3 1.5 1.5 1 2 7 0 0 8 a\x00\x00\x00"
	plainRecords = "41ed 0 1 a.5 +|1 a.5 +|2 1 7 0 0 0 .\n//\n.\n//\n81a4 3 1 a.5 +|1 a.5 +|1 2 7 0 0 8 ./a\n//\n./a\n//\n//\n"
)

// listed is what is to be read of the listing of that directory.
type listed struct {
	now    tree.Time
	origin string
	cut    bool
	coarse bool
}

// goodListings are the ways a listing can begin, with what each tells.
var goodListings = []struct {
	name, text string
	want       listed
}{
	{"a time in the first line", "gnu 1700000000.5 boot\n" + gnuRecords,
		listed{now: tree.Time{Sec: 1_700_000_000, Nsec: 500_000_000}, origin: "boot 7 1"}},
	{"a time of its own", "gnu - boot\nnow 1700000000.25\x00" + gnuRecords,
		listed{now: tree.Time{Sec: 1_700_000_000, Nsec: 250_000_000}, origin: "boot 7 1"}},
	{"whole seconds", "gnu - boot\nnow 1700000000\x00" + gnuRecords,
		listed{now: tree.Time{Sec: 1_700_000_000}, origin: "boot 7 1"}},
	{"a sandbox without /proc", "gnu - -\n" + gnuRecords, listed{}},
	{"a boot and no time", "gnu - boot\n" + gnuRecords, listed{origin: "boot 7 1"}},
	{"not GNU's after all", "gnu - boot\nplain 1700000000.5 boot\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_000, Nsec: 500_000_000}, origin: "boot 7 1", cut: true}},
	{"not GNU's, with a clock of seconds", "gnu - boot\nplain 1700000000.%N boot 1700000000 2023-11-14 22:13:20.125000000 +0000\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_000, Nsec: 125_000_000}, origin: "boot 7 1", cut: true}},
	{"the second begins meanwhile", "gnu - boot\nplain 1700000000. boot 1700000001 2023-11-14 22:13:21.125 +0000\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_001, Nsec: 125_000_000}, origin: "boot 7 1", cut: true}},
	{"a process older than the clock says", "gnu - boot\nplain 1700000000. boot 1699999999 2023-11-14 22:13:19.125 +0000\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_000}, origin: "boot 7 1", cut: true}},
	{"a process from later on", "gnu - boot\nplain 1700000000. boot 1700000002 2023-11-14 22:13:22.125 +0000\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_000}, origin: "boot 7 1", cut: true}},
	{"a stat of seconds too", "gnu - -\nplain 1700000000. - 1700000000 2023-11-14 22:13:20 +0000\n" + strings.ReplaceAll(plainRecords, "a.5 +", "a"),
		listed{now: tree.Time{Sec: 1_700_000_000}, cut: true, coarse: true}},
	{"plain alone", "plain 1700000000.5 boot\n" + plainRecords,
		listed{now: tree.Time{Sec: 1_700_000_000, Nsec: 500_000_000}, origin: "boot 7 1", cut: true}},
}

// badListings are beginnings that are none, with the error they give; nil: any.
var badListings = []struct {
	name, text string
	want       error
}{
	{"nothing", "", errNoList},
	{"another kind", "bsd 1700000000.5 boot\n" + gnuRecords, errNoList},
	{"too few words", "gnu -\n" + gnuRecords, errNoList},
	{"cut in the first line", "gnu - boot", io.ErrUnexpectedEOF},
	{"cut behind the first line", "gnu - boot\n", io.ErrUnexpectedEOF},
	{"cut in a word", "gnu - boot\nno", io.ErrUnexpectedEOF},
	{"cut in the time", "gnu - boot\nnow 17", io.ErrUnexpectedEOF},
	{"cut behind the time", "gnu - boot\nnow 17\x00", io.ErrUnexpectedEOF},
	{"no time in the first line", "gnu soon boot\n" + gnuRecords, nil},
	{"no time in its record", "gnu - boot\nnow soon\x00" + gnuRecords, nil},
	{"two times", "gnu - boot\nnow 17\x00now 18\x00" + gnuRecords, nil},
	{"cut in the second line", "gnu - boot\nplain 17.5 bo", io.ErrUnexpectedEOF},
	{"too few words in the second line", "gnu - boot\nplain 17.5\n" + plainRecords, errNoList},
	{"another second line", "gnu - boot\nplains 17.5 boot\n" + plainRecords, errNoList},
	{"no time in the second line", "gnu - boot\nplain soon boot\n" + plainRecords, nil},
	{"records of the other kind", "gnu - boot\nnow 17\x00" + plainRecords, nil},
	{"plain records in the first listing", "gnu - boot\n" + plainRecords, nil},
}

func parseListing(text string) (*listing, error) {
	l := &lister{v: NewVolume(nil, "acme", nil)}
	if err := l.parse(bufio.NewReader(strings.NewReader(text))); err != nil {
		return nil, err
	}
	return l.finish()
}

func TestListingHeads(t *testing.T) {
	for _, test := range goodListings {
		l, err := parseListing(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := (listed{l.now, l.origin, l.cut, l.coarse}); got != test.want {
			t.Errorf("%s: read %+v, want %+v", test.name, got, test.want)
		}
		if a := l.find("a"); len(l.entries) != 2 || a == nil || a.Kind != tree.File || a.Size != 3 {
			t.Errorf("%s: %d entries, and %+v", test.name, len(l.entries), a)
		}
	}
	for _, test := range badListings {
		if l, err := parseListing(test.text); err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: read %+v, %v, want %v", test.name, l, err, test.want)
		}
	}
}

const goneLine = "find: './x': No such file or directory\n"

// gone gives n bytes of what find says when files vanish.
func gone(n int) string {
	pad := n % len(goneLine)
	return strings.Repeat(goneLine, n/len(goneLine)-1) + "find: './x" + strings.Repeat("x", pad) + goneLine[len("find: './x"):]
}

func TestOnlyGone(t *testing.T) {
	for _, test := range []struct {
		name, said string
		want       bool
	}{
		{"nothing", "", true},
		{"gone", goneLine + goneLine, true},
		{"refused", "find: './x': Permission denied\n", false},
		{"gone and refused", goneLine + "find: './x': Permission denied\n" + goneLine, false},
		{"gone in a name", "find: './No such file or directory': Permission denied\n", false},
		{"almost too much", gone(maxSaid - 5), true},
		// A script passes on 30000 bytes, of which a rune that was cut is a '?' here.
		{"too much but for half a rune", gone(maxSaid - 4), false},
		{"as much as is passed on", gone(30000), false},
		{"more", gone(40000), false},
	} {
		if got := onlyGone(test.said); got != test.want {
			t.Errorf("%s (%d bytes): %v", test.name, len(test.said), got)
		}
	}
}

// says is a sandbox in which every command prints the same.
type says string

func (s says) Run(_ context.Context, _ io.Reader, stdout io.Writer, _ string, _ ...string) error {
	_, err := io.WriteString(stdout, string(s))
	return err
}

// Where find said more than is passed on, what was cut off may be that it could not
// read a directory, which must not look as if it were empty.
func TestListingWithTooMuchSaid(t *testing.T) {
	for n, want := range map[int]bool{len(goneLine): true, 20000: true, maxSaid: false, 2 * maxSaid: false} {
		said := gone(n) + "find: './secret': Permission denied\n"
		if n < maxSaid {
			said = gone(n)
		}
		text := "gnu - boot\nnow 1700000000.5\x00" + gnuRecords + statusMark + said[:min(len(said), maxSaid)] + "\nfind 1"
		l, err := (&sandboxed{NewVolume(nil, "acme", nil), says(text), "/work"}).list(t.Context())
		if (err == nil) != want {
			t.Errorf("%d bytes said: %+v, %v", n, l, err)
		}
	}
}
