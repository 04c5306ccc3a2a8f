package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// packer gathers frames into packs and uploads those.
type packer struct {
	in   *intake
	n    uint32     // packs that were made
	cur  chan *pack // holds the one that is being filled, or nil
	bufs buffers
	up   errgroup.Group
}

type pack struct {
	tree.Pack
	buf []byte
}

func (p *packer) open(in *intake, bufs int) {
	p.in, p.cur, p.bufs = in, make(chan *pack, 1), newBuffers(bufs, 0)
	p.cur <- nil
}

// add puts a frame into the pack that is being filled, and waits for a buffer
// where that is full and all others are being uploaded.
func (p *packer) add(f *tree.Frame, data []byte) error {
	cur := <-p.cur
	defer func() { p.cur <- cur }()
	if cur != nil && len(cur.buf)+len(data) > packSize {
		p.upload(cur)
		cur = nil
	}
	if cur == nil {
		buf, err := p.bufs.take(p.in.ctx)
		if err != nil {
			return err
		}
		cur = &pack{buf: buf}
	}
	f.Pack, f.Off = &cur.Pack, uint32(len(cur.buf))
	cur.buf = append(roomFor(cur.buf, len(data)), data...)
	return nil
}

// roomFor gives buf with room for n more bytes. It at least doubles, and is no larger
// than a pack where that will do: a small Sync takes little, and a large one soon has
// whole buffers, which are used again.
func roomFor(buf []byte, n int) []byte {
	need := len(buf) + n
	if need <= cap(buf) {
		return buf
	}
	return append(make([]byte, 0, max(need, min(max(2*cap(buf), frameSize), packSize))), buf...)
}

// seal uploads what is left.
func (p *packer) seal() {
	if cur := <-p.cur; cur != nil {
		p.upload(cur)
	}
	p.cur <- nil
}

func (p *packer) wait() error { return p.up.Wait() }

// upload stores a pack. Its name has a checksum of its bytes: enough to find damage
// in them, while its contents have a SHA-256 each. Callers hold cur.
func (p *packer) upload(cur *pack) {
	p.n++
	number := p.n
	p.up.Go(func() error {
		sum := crcOf(cur.buf)
		cur.Name = fmt.Sprintf("%x%08x.%s", sum, number, p.in.nonce)
		key := p.in.v.packKey(cur.Name)
		err := p.in.v.bucket.Put(p.in.ctx, key, bytes.NewReader(cur.buf), &PutOptions{CRC32C: sum, Size: int64(len(cur.buf))})
		p.in.added.Add(int64(len(cur.buf)))
		p.bufs.give(cur.buf)
		if err != nil {
			p.in.cancel()
			return fmt.Errorf("store object %s: %w", key, err)
		}
		return nil
	})
}

// crcOf is a CRC-32C in big-endian order.
func crcOf(data []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))
}

// putNamed stores an object under the SHA-256 of its bytes and a nonce. With the
// nonce no writer relies on another's object unless a version names it, which is
// what makes it safe for Prune to remove those that none does.
func (v *Volume) putNamed(ctx context.Context, key func(string) string, data []byte, nonce string) (string, error) {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:]) + "." + nonce
	err := v.bucket.Put(ctx, key(name), bytes.NewReader(data), &PutOptions{SHA256: sum[:], Size: int64(len(data))})
	if err != nil {
		return "", fmt.Errorf("store object %s: %w", key(name), err)
	}
	return name, nil
}
