package storage

import (
	"fmt"
	"io"
)

// expand writes a sparse file with its holes filled by zeros.
func (f *tarFilter) expand(m *member) error {
	plain := *m
	plain.sparse, plain.size = false, m.real
	if err := f.write(plain.appendHeader(f.head[:0], busybox)); err != nil {
		return err
	}
	runs, used, err := f.readMap(m)
	if err != nil {
		return err
	}
	var at int64
	for _, r := range runs {
		if r.off < at || r.n > m.size-used || r.off > m.real || r.n > m.real-r.off {
			return fmt.Errorf("%w: bad sparse map", errNotTar)
		}
		if err := f.zeros(r.off - at); err != nil {
			return err
		}
		if err := f.copyN(r.n); err != nil {
			return err
		}
		at, used = r.off+r.n, used+r.n
	}
	if err := f.zeros(m.real - at + padding(m.real)); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, f.in, m.size-used+padding(m.size))
	return cutShort(err)
}

func (f *tarFilter) zeros(n int64) error {
	var block [32 << 10]byte
	for n > 0 {
		k, err := f.out.Write(block[:min(n, int64(len(block)))])
		f.written += int64(k)
		n -= int64(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// maxRuns bounds the memory a sparse map can take here.
const maxRuns = 1 << 20

// run is a stretch of data in a sparse file.
type run struct{ off, n int64 }

// readMap reads the map that starts a sparse member's data: decimal lines, first
// the number of runs, then an offset and a length for each, padded to a block.
func (f *tarFilter) readMap(m *member) (runs []run, used int64, err error) {
	line := func() (int64, error) {
		var digits []byte
		for used < m.size && len(digits) < 20 {
			c, err := f.in.ReadByte()
			if err != nil {
				return 0, cutShort(err)
			}
			used++
			if c == '\n' {
				return parseLength(string(digits))
			}
			digits = append(digits, c)
		}
		return 0, fmt.Errorf("%w: bad sparse map", errNotTar)
	}
	count, err := line()
	if err != nil {
		return nil, 0, err
	}
	if count > maxRuns {
		return nil, 0, fmt.Errorf("%w: sparse map of %d runs", errNotTar, count)
	}
	for range count {
		off, err := line()
		if err != nil {
			return nil, 0, err
		}
		n, err := line()
		if err != nil {
			return nil, 0, err
		}
		runs = append(runs, run{off, n})
	}
	pad := padding(used)
	if used+pad > m.size {
		return nil, 0, fmt.Errorf("%w: bad sparse map", errNotTar)
	}
	_, err = io.CopyN(io.Discard, f.in, pad)
	return runs, used + pad, cutShort(err)
}
