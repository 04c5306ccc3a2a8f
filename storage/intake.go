package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/cut"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Sizes in bytes. Files of up to smallFile share frames, which are closed from
// frameSize on; larger ones have frames of their own, and from cut.Max on several.
const (
	smallFile = 256 << 10
	frameSize = 256 << 10
	packSize  = 8 << 20
)

// reading is what was read of a file.
type reading struct {
	size   int64
	pieces []*piece
	link   string // of a symbolic link
}

// piece is a stretch of a file; blob is known once its batch was worked on, and
// stays nil for a hole.
type piece struct {
	size int64
	hole bool
	blob *tree.Blob
}

// chunks gives the contents, once the intake was closed.
func (r *reading) chunks() []tree.Chunk {
	out := make([]tree.Chunk, len(r.pieces))
	for i, p := range r.pieces {
		out[i] = tree.Chunk{Blob: p.blob, Size: p.size}
	}
	return out
}

// batch is contents on their way into one frame.
type batch struct {
	buf   []byte
	parts []part
}

type part struct {
	off, n int
	piece  *piece
}

// intake takes the contents of files, finds out which are new, compresses those,
// and stores them in packs. One goroutine feeds it (begin, data, hole, end, link);
// others work behind it. Memory is bounded by the number of buffers there are.
type intake struct {
	v     *Volume
	meter *meter
	enc   *zstd.Encoder
	nonce string // in the names of this Sync's objects

	cur    *reading
	batch  *batch // files that are gathered for one frame
	bufs   buffers
	jobs   chan *batch
	group  errgroup.Group
	ctx    context.Context
	cancel context.CancelFunc

	blobs blobIndex
	packs packer
	added atomic.Int64 // bytes stored
	said  string       // the last words of the sandbox's tar, if there were any
}

// blobIndex finds contents that are stored already.
type blobIndex struct {
	mu  sync.Mutex
	all map[[32]byte]*tree.Blob
}

// add makes the contents of t known.
func (x *blobIndex) add(t *tree.Tree) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range t.Entries {
		for _, c := range t.Entries[i].Chunks {
			if c.Blob != nil {
				x.all[c.Blob.Sum] = c.Blob
			}
		}
	}
}

// claim gives the blob with that sum, and whether it is new, so that the caller
// has to store it.
func (x *blobIndex) claim(sum [32]byte, size int) (b *tree.Blob, fresh bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b, ok := x.all[sum]; ok {
		return b, false
	}
	b = &tree.Blob{Sum: sum, Len: uint32(size)}
	x.all[sum] = b
	return b, true
}

// newIntake starts the goroutines of an intake, which close ends.
func (v *Volume) newIntake(ctx context.Context, m *meter, nonce string) *intake {
	ctx, cancel := context.WithCancel(ctx)
	workers := max(2, runtime.GOMAXPROCS(0))
	bufs := workers + 2
	room := v.opts.Memory - int64(bufs)*cut.Max - int64(workers)*(cut.Max+cut.Max/8)
	in := &intake{
		v: v, meter: m, enc: encoder(v.opts.Compression), nonce: nonce,
		bufs: newBuffers(bufs, cut.Max), jobs: make(chan *batch),
		ctx: ctx, cancel: cancel,
		blobs: blobIndex{all: map[[32]byte]*tree.Blob{}},
	}
	in.packs.open(in, int(max(room/packSize, 2)))
	for range workers {
		in.group.Go(func() error {
			var out []byte // what is compressed, reused
			for b := range in.jobs {
				if err := in.work(b, &out); err != nil {
					in.cancel()
					return err
				}
			}
			return nil
		})
	}
	return in
}

// close waits until everything is stored, or gives up where err says that reading
// failed.
func (in *intake) close(err error) error {
	defer in.cancel()
	if err == nil && in.batch != nil {
		err = in.send(in.batch)
	}
	if err != nil {
		in.cancel()
	}
	close(in.jobs)
	workErr := in.group.Wait()
	if err == nil && workErr == nil {
		in.packs.seal()
	} else {
		in.cancel()
	}
	return reason(in.packs.wait(), workErr, err)
}

// reason gives the error of several that the others follow from: one that is not
// about a context, if there is one.
func reason(errs ...error) error {
	var first error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		first = cmp.Or(first, err)
	}
	return first
}

// buffers are a bounded number of buffers. The one that was given back last is used
// first, and others are made only when none is at hand.
type buffers struct {
	size  int // of one that is made; who takes it may give back a larger one
	spare chan []byte
	more  chan struct{}
}

func newBuffers(n, size int) buffers {
	b := buffers{size: size, spare: make(chan []byte, n), more: make(chan struct{}, n)}
	for range n {
		b.more <- struct{}{}
	}
	return b
}

// take gives an empty buffer, and waits for one while all are in use.
func (b buffers) take(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-b.spare:
		return buf[:0], nil
	default:
	}
	select {
	case buf := <-b.spare:
		return buf[:0], nil
	case <-b.more:
		return make([]byte, 0, b.size), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (b buffers) give(buf []byte) { b.spare <- buf }

func (in *intake) send(b *batch) error {
	select {
	case in.jobs <- b:
		return nil
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// begin starts a file.
func (in *intake) begin(f *found) {
	in.cur = &reading{}
	f.read = in.cur
}

// link tells the target of a symbolic link.
func (in *intake) link(f *found, target string) {
	f.read = &reading{link: target}
	in.meter.add(1, 0)
}

func (in *intake) end() {
	in.cur = nil
	in.meter.add(1, 0)
}

func (in *intake) hole(n int64) {
	if n > 0 {
		in.cur.pieces = append(in.cur.pieces, &piece{size: n, hole: true})
		in.cur.size += n
		in.meter.add(0, n)
	}
}

// data reads n bytes of the file from r.
func (in *intake) data(r io.Reader, n int64) error {
	switch {
	case n == 0:
		return nil
	case n <= smallFile:
		return in.small(r, int(n))
	}
	return in.large(r, n)
}

func (in *intake) small(r io.Reader, n int) error {
	if in.batch == nil {
		buf, err := in.bufs.take(in.ctx)
		if err != nil {
			return err
		}
		in.batch = &batch{buf: buf}
	}
	b := in.batch
	off := len(b.buf)
	b.buf = b.buf[:off+n]
	if _, err := io.ReadFull(r, b.buf[off:]); err != nil {
		b.buf = b.buf[:off]
		return err
	}
	b.parts = append(b.parts, part{off, n, in.piece(n)})
	if len(b.buf) < frameSize {
		return nil
	}
	in.batch = nil
	return in.send(b)
}

// piece notes n more bytes of the file.
func (in *intake) piece(n int) *piece {
	p := &piece{size: int64(n)}
	in.cur.pieces = append(in.cur.pieces, p)
	in.cur.size += int64(n)
	in.meter.add(0, int64(n))
	return p
}

// large cuts n bytes into chunks, each a batch of its own.
func (in *intake) large(r io.Reader, n int64) error {
	buf, err := in.bufs.take(in.ctx)
	if err != nil {
		return err
	}
	whole := n <= cut.Max
	for {
		off := len(buf)
		more := int(min(n, int64(cap(buf)-off)))
		buf = buf[:off+more]
		if _, err := io.ReadFull(r, buf[off:]); err != nil {
			in.bufs.give(buf)
			return err
		}
		n -= int64(more)
		size := len(buf)
		if !whole {
			size = cut.Next(buf)
		}
		var next []byte
		last := size == len(buf) && n == 0
		if !last {
			if next, err = in.bufs.take(in.ctx); err != nil {
				return err
			}
			next = append(next, buf[size:]...)
		}
		if err := in.send(&batch{buf: buf[:size], parts: []part{{0, size, in.piece(size)}}}); err != nil || last {
			return err
		}
		buf = next
	}
}

// work finds the contents of a batch that are new, and stores them as one frame.
func (in *intake) work(b *batch, out *[]byte) error {
	var fresh []*tree.Blob
	keep := b.buf[:0]
	for _, p := range b.parts {
		data := b.buf[p.off : p.off+p.n]
		blob, isNew := in.blobs.claim(sha256.Sum256(data), p.n)
		if p.piece.blob = blob; isNew {
			blob.Off = uint32(len(keep))
			keep = append(keep, data...) // moves it towards the start
			fresh = append(fresh, blob)
		}
	}
	var err error
	if len(fresh) > 0 {
		err = in.store(keep, fresh, out)
	}
	in.bufs.give(b.buf)
	return err
}

func (in *intake) store(data []byte, blobs []*tree.Blob, out *[]byte) error {
	frame := &tree.Frame{Size: uint32(len(data)), Raw: true}
	packed := data
	if len(blobs) > 1 || packs(in.enc, data) {
		if *out = in.enc.EncodeAll(data, (*out)[:0]); len(*out) < len(data) {
			packed, frame.Raw = *out, false
		}
	}
	frame.Stored = uint32(len(packed))
	for _, b := range blobs {
		b.Frame = frame
	}
	return in.packs.add(frame, packed)
}
