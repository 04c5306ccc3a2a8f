package runlog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestTornIsLookedAtAgain has a reader find a record cut, and look what it is when the
// writer has finished it and added another: that is no damage.
func TestTornIsLookedAtAgain(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Write(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Append(t.Context(), [][]byte{[]byte("one\n"), []byte("two\n"), []byte("three\n")}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(d.dir, "r.log"))
	if err != nil {
		t.Fatal(err)
	}
	l := newLogFile(f)
	defer l.Close()
	if _, err := l.next(1); err != nil {
		t.Fatal(err)
	}
	l.back()
	if err := l.torn(); !errors.Is(err, errTail) {
		t.Errorf("a record that is whole by now: %v", err)
	}
	if rec, err := l.next(1); err != nil || string(rec.data) != "two\n" {
		t.Errorf("after it %q, %v", rec.data, err)
	}
}
