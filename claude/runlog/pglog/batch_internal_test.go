package pglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// FuzzBatch reads rows that may be damaged: what is given of one is a beginning of its
// data, and all of it where there is no error.
func FuzzBatch(f *testing.F) {
	f.Add(int64(1), int64(3), []byte{4, 4}, []byte("one\ntwo\n"))
	f.Add(int64(7), int64(8), []byte{0}, []byte{})
	f.Add(int64(1), int64(2), []byte{5}, []byte("one\n"))
	f.Add(int64(1), int64(2), []byte{3}, []byte("one\n"))
	f.Add(int64(1), int64(1<<40), []byte{}, []byte{})
	f.Add(int64(1), int64(2), binary.AppendUvarint(nil, 1<<63), []byte("x"))
	f.Fuzz(func(t *testing.T, first, next int64, sizes, data []byte) {
		b := batch{first: first, next: next, sizes: sizes, data: data}
		var got []byte
		n := first
		var failed error
		for line, err := range b.lines() {
			if failed = err; err != nil {
				break
			}
			if line.N != n {
				t.Fatalf("line %d where %d belongs", line.N, n)
			}
			n++
			got = append(got, line.Data...)
		}
		if failed != nil && !errors.Is(failed, runlog.ErrCorrupt) {
			t.Errorf("it is damaged: %v", failed)
		}
		if !bytes.HasPrefix(data, got) || failed == nil && (len(got) != len(data) || n != max(first, next)) {
			t.Errorf("%q was given of %q, up to line %d, %v", got, data, n-1, failed)
		}
	})
}
