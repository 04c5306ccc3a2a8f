package storage

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxFrame bounds the contents of a frame, so that a hostile one cannot ask for
// much memory. What is written here stays below half of it.
const maxFrame = 8 << 20

// encoders are made when first needed and serve every volume. Their EncodeAll may
// be called concurrently and leaves no goroutine behind.
var encoders = func() map[zstd.EncoderLevel]func() *zstd.Encoder {
	all := map[zstd.EncoderLevel]func() *zstd.Encoder{}
	for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
		all[level] = sync.OnceValue(func() *zstd.Encoder {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false),
				zstd.WithWindowSize(2<<20), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
			if err != nil {
				panic(err) // the options are constant
			}
			return enc
		})
	}
	return all
}()

func encoder(level int) *zstd.Encoder {
	return encoders[zstd.EncoderLevelFromZstd(max(level, 1))]()
}

var frameDecoder = sync.OnceValue(func() *zstd.Decoder {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(maxFrame))
	if err != nil {
		panic(err) // the options are constant
	}
	return dec
})

// unpack unpacks a zstd frame that is to give size bytes, into dst if that has
// room.
func unpack(dst, packed []byte, size int) ([]byte, error) {
	out, err := frameDecoder().DecodeAll(packed, dst[:0])
	if err == nil && len(out) != size {
		err = fmt.Errorf("it unpacks to %d bytes, not to %d", len(out), size)
	}
	return out, err
}

// unpackListing unpacks a listing, which may be long.
func unpackListing(packed []byte, size int64) ([]byte, error) {
	if size > 1000*int64(len(packed))+64<<10 {
		return nil, fmt.Errorf("%d bytes are said to unpack to %d", len(packed), size)
	}
	dec, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	out := bytes.NewBuffer(make([]byte, 0, size+512))
	n, err := io.Copy(out, io.LimitReader(dec, size+1))
	if err == nil && n != size {
		err = fmt.Errorf("it does not unpack to %d bytes", size)
	}
	return out.Bytes(), err
}

// packs reports whether data is worth compressing, by a sample from its middle.
func packs(enc *zstd.Encoder, data []byte) bool {
	const sample = 16 << 10
	if len(data) < 4*sample {
		return true
	}
	at := (len(data) - sample) / 2
	return len(enc.EncodeAll(data[at:at+sample], nil)) < sample*97/100
}
