package runlog

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// A log's file is fileMagic, 8 random bytes, and records behind each other. A record is
//
//	4 bytes  CRC-32C (Castagnoli) of the file's random bytes and all that follows in
//	         the record, little-endian; without them a line could hold what looks like
//	         a record of its file
//	4 bytes  length of the data, little-endian
//	1 byte   kind
//	...      data: of kindLine the line, of kindEnd an End as JSON
//
// Lines are numbered in their order, from 1. Nothing follows a kindEnd.
const fileMagic = "vivarium-runlog1"

const (
	kindLine = 1
	kindEnd  = 2
)

const (
	saltSize  = 8
	startSize = len(fileMagic) + saltSize
	headSize  = 9
	maxRecord = 1<<31 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends a record of a file with that CRC of its random bytes.
func appendRecord(out []byte, salt uint32, kind byte, data []byte) []byte {
	begin := len(out)
	out = append(out, 0, 0, 0, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	out = append(append(out, kind), data...)
	binary.LittleEndian.PutUint32(out[begin:], crc32.Update(salt, castagnoli, out[begin+4:]))
	return out
}

type fileRecord struct {
	kind byte
	n    int64 // of a line
	data []byte
}

// errTail says that there is no whole record at the place: it is the end of the log,
// or the torn tail of one.
var errTail = errors.New("the end of the log")

// logFile reads a file from its begin.
type logFile struct {
	f    *os.File
	in   *bufio.Reader // of what follows at
	at   int64         // behind the last whole record; 0: nothing was read
	salt uint32        // CRC of the random bytes
	info Info          // up to there
}

func newLogFile(f *os.File) *logFile { return &logFile{f: f} }

// Close closes the file.
func (l *logFile) Close() error {
	l.back()
	return l.f.Close()
}

// buffers are for those who read, and not for those who wait.
var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

// back reads from at again, the next time, and lets go of the buffer.
func (l *logFile) back() {
	if l.in != nil {
		l.in.Reset(nil)
		buffers.Put(l.in)
		l.in = nil
	}
}

// next reads a record. The data of a line before number from is checked and not
// kept. errTail is no reason not to try again later, when more may be there.
func (l *logFile) next(from int64) (fileRecord, error) {
	if l.in == nil {
		l.in = buffers.Get().(*bufio.Reader)
		l.in.Reset(io.NewSectionReader(l.f, l.at, 1<<62))
	}
	rec, size, err := l.read(from)
	if err != nil {
		l.back()
		return rec, err
	}
	l.at += size
	switch rec.kind {
	case kindLine:
		l.info.Lines++
		l.info.Bytes += size - headSize
		rec.n = l.info.Lines
	case kindEnd:
		l.info.End = new(End)
		if err := json.Unmarshal(rec.data, l.info.End); err != nil {
			return rec, fmt.Errorf("%w: its end: %w", ErrCorrupt, err)
		}
	}
	return rec, nil
}

func (l *logFile) read(from int64) (rec fileRecord, size int64, err error) {
	if l.at == 0 {
		if err := l.start(); err != nil {
			return rec, 0, err
		}
	}
	var head [headSize]byte
	if n, err := io.ReadFull(l.in, head[:]); err != nil {
		if n > 0 && isEOF(err) {
			return rec, 0, l.torn()
		}
		return rec, 0, tail(err)
	}
	length := binary.LittleEndian.Uint32(head[4:])
	rec.kind = head[8]
	if rec.kind != kindLine && rec.kind != kindEnd || length > maxRecord || l.info.End != nil {
		return rec, 0, l.torn()
	}
	body := &body{sum: crc32.Update(l.salt, castagnoli, head[4:]), keep: rec.kind == kindEnd || l.info.Lines+1 >= from}
	n, err := io.CopyN(body, l.in, int64(length))
	switch {
	case err != nil && !isEOF(err):
		return rec, 0, err
	case err != nil || body.sum != binary.LittleEndian.Uint32(head[:]):
		return rec, 0, l.torn()
	}
	rec.data = body.data
	return rec, headSize + n, nil
}

// start reads what a file begins with.
func (l *logFile) start() error {
	var start [startSize]byte
	n, err := io.ReadFull(l.in, start[:])
	if err != nil && !isEOF(err) {
		return err
	}
	if m := min(n, len(fileMagic)); string(start[:m]) != fileMagic[:m] {
		return fmt.Errorf("%w: it begins with %q", ErrCorrupt, start[:m])
	}
	if err != nil {
		return errTail
	}
	l.at, l.salt = int64(n), crc32.Checksum(start[len(fileMagic):], castagnoli)
	return nil
}

// body takes the data of a record. It grows as that comes, and not as a length says
// that may be damaged.
type body struct {
	sum  uint32
	keep bool
	data []byte
}

func (b *body) Write(p []byte) (int, error) {
	b.sum = crc32.Update(b.sum, castagnoli, p)
	if b.keep {
		b.data = append(b.data, p...)
	}
	return len(p), nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func tail(err error) error {
	if isEOF(err) {
		return errTail
	}
	return err
}

// How much of a file is searched for whole records behind one that is not, and how
// much is checked for that, in bytes.
const (
	maxTorn  = 64 << 20
	maxTried = 1 << 30
)

// torn tells what at holds: the torn tail of a log, behind which there is nothing, or
// damage in the middle of one, which nobody is to take for its end.
func (l *logFile) torn() error {
	rest, err := io.ReadAll(io.NewSectionReader(l.f, l.at, maxTorn))
	if err != nil {
		return err
	}
	damaged := fmt.Errorf("%w: at byte %d, after line %d", ErrCorrupt, l.at, l.info.Lines)
	tried := int64(0)
	for i := 0; i+headSize <= len(rest); i++ {
		kind, length := rest[i+8], int64(binary.LittleEndian.Uint32(rest[i+4:]))
		if kind != kindLine && kind != kindEnd || int64(i)+headSize+length > int64(len(rest)) {
			continue
		}
		tried += length
		if tried > maxTried || crc32.Update(l.salt, castagnoli, rest[i+4:int64(i)+headSize+length]) == binary.LittleEndian.Uint32(rest[i:]) {
			if i == 0 && l.info.End == nil {
				return errTail // it was being written, and is whole by now
			}
			return damaged
		}
	}
	if l.info.End != nil && len(rest) > 0 {
		return fmt.Errorf("%w: there is something behind its end", ErrCorrupt)
	}
	return errTail
}

// toEnd reads to the end of what there is.
func (l *logFile) toEnd(ctx context.Context) error {
	for {
		_, err := l.next(1 << 62)
		if errors.Is(err, errTail) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// repair reads to the end and cuts off what is torn there.
func (l *logFile) repair() error {
	if err := l.toEnd(context.Background()); err != nil {
		return err
	}
	size, err := l.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if l.at == 0 { // new, or torn in its first bytes
		var salt [saltSize]byte
		_, _ = rand.Read(salt[:]) // never fails
		if _, err := l.f.WriteAt(append([]byte(fileMagic), salt[:]...), 0); err != nil {
			return err
		}
		l.at, l.salt = int64(startSize), crc32.Checksum(salt[:], castagnoli)
	}
	if size > l.at {
		return l.f.Truncate(l.at)
	}
	return nil
}
