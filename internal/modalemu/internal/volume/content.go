package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"syscall"
)

// extents calls f with the offset and length of each part of file that is not a
// hole, as far as the system tells, and moves the file's position.
func extents(file *os.File, size int64, f func(offset, length int64) error) error {
	for offset := int64(0); offset < size; {
		start, end := offset, size
		if seekData >= 0 {
			var err error
			start, err = file.Seek(offset, seekData)
			if errors.Is(err, syscall.ENXIO) {
				return nil // nothing but a hole up to the end
			}
			if err != nil {
				return err
			}
			if end, err = file.Seek(start, seekHole); err != nil {
				return err
			}
		}
		end = min(end, size)
		if start >= end {
			return nil
		}
		if err := f(start, end-start); err != nil {
			return err
		}
		offset = end
	}
	return nil
}

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 64 << 20

// copyContent copies the first size bytes of src, holes as holes.
func copyContent(ctx context.Context, dst, src *os.File, size int64) error {
	var end int64
	err := extents(src, size, func(offset, length int64) error {
		end = offset + length
		if _, err := dst.Seek(offset, io.SeekStart); err != nil {
			return err
		}
		for ; length > 0; length -= copyChunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := src.Seek(offset, io.SeekStart); err != nil {
				return err
			}
			n, err := io.CopyN(dst, src, min(length, copyChunk))
			offset += n
			if errors.Is(err, io.EOF) {
				return nil // it has become shorter; the next commit sees that
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || end >= size {
		return err // without a Truncate, after which ext4 writes the file to disk at once
	}
	return dst.Truncate(size)
}

var (
	seed  = maphash.MakeSeed()
	zeros [blockSize]byte
)

const blockSize = 4096

// sum is a checksum of a file's content, the same for equal contents however
// their holes are stored.
func sum(ctx context.Context, file *os.File, size int64) (uint64, error) {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, size)
	buf := make([]byte, 64*blockSize)
	var err error
	for offset := int64(0); offset < size && err == nil; {
		// Whole blocks at multiples of the block's size, whatever the extents are.
		offset, err = nextBlock(file, offset, size)
		if err != nil || offset >= size {
			break
		}
		if err = ctx.Err(); err != nil {
			break
		}
		var n int
		n, err = file.ReadAt(buf, offset)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if n == 0 {
			break
		}
		sumBlocks(&h, buf[:n], offset)
		offset += int64(n)
	}
	return h.Sum64(), err
}

// nextBlock is the start of the first block at or after offset that has data.
func nextBlock(file *os.File, offset, size int64) (int64, error) {
	if seekData < 0 {
		return offset, nil
	}
	next, err := file.Seek(offset, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return size, nil
	}
	return max(offset, next/blockSize*blockSize), err
}

func sumBlocks(h *maphash.Hash, data []byte, offset int64) {
	var at [8]byte
	for len(data) > 0 {
		block := data[:min(len(data), blockSize)]
		if !bytes.Equal(block, zeros[:len(block)]) {
			binary.LittleEndian.PutUint64(at[:], uint64(offset))
			_, _ = h.Write(at[:])
			_, _ = h.Write(block)
		}
		data, offset = data[len(block):], offset+int64(len(block))
	}
}
