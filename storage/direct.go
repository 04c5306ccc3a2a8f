package storage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Large files may travel between a sandbox and the bucket without this process:
// see Options.Direct. Such a file is cut at fixed places, each piece is a pack of
// its own, and curl in the sandbox sends or fetches it by a request that this
// process has signed. The requests travel on the standard input of the script, so that
// no other process sees them, and no file holds them.
const (
	directPiece   = 8 << 20          // bytes
	directBatch   = 32               // pieces for which requests are signed at a time
	directExpires = 10 * time.Minute // of a request
)

// directHead is what the scripts for direct transport share. send reads one request
// from standard input, lines of a curl configuration up to an empty one, and makes
// it, with more options as arguments.
const directHead = scriptHead + `
exec 2>&1
command -v curl >/dev/null || die "curl is not in the sandbox: install it, or leave Options.Direct off"
tmp=$(mktemp) || die "no room for a temporary file"
trap 'rm -f "$tmp"' EXIT
send() {
	config=
	while IFS= read -r line && [ -n "$line" ]; do
		config="$config$line
"
	done
	printf '%s' "$config" | curl -sS -f --retry 3 --connect-timeout 20 "$@" -K - || die "curl failed"
}
piece() { dd if="$1" bs=8388608 skip="$2" count=1 2>/dev/null; }
`

// sumScript prints the SHA-256 of each piece of the file $2, of which there are $3,
// between two lines with its size and times.
const sumScript = scriptHead + `
enter "$1"
stat -c '%s %Y %Z' "$2" || die "it is gone"
n=0
while [ "$n" -lt "$3" ]; do
	dd if="$2" bs=8388608 skip="$n" count=1 2>/dev/null | sha256sum | cut -c 1-64
	n=$((n+1))
done
stat -c '%s %Y %Z' "$2" || die "it is gone"
`

// putScript reads the number of a piece of the file $2 and a request, again and
// again, and sends them.
const putScript = directHead + `
enter "$1"
while IFS= read -r n; do
	piece "$2" "$n" >"$tmp" || die "cannot read $2"
	send -T "$tmp" -o /dev/null
done
`

// fetchScript makes the file $3 of the staging directory from the pieces of which
// it reads the SHA-256 and a request each. $4 is its mode, $5 its time, $6 its owner
// or empty.
const fetchScript = directHead + `
enter "$1"
cd "./$prefix$2/new" || die "the staging directory is gone"
case $3 in */*/*) mkdir -p "${3%/*}" || die "cannot make ${3%/*}";; esac
: >"$3" || die "cannot make $3"
while IFS= read -r sum; do
	send -o "$tmp"
	[ "$(sha256sum <"$tmp" | cut -c 1-64)" = "$sum" ] || { echo "damaged $sum"; exit 4; }
	cat "$tmp" >>"$3" || die "cannot write $3"
done
[ -z "$6" ] || chown "$6" "$3" || die "cannot set the owner of $3"
chmod "$4" "$3" && { touch -d "@$5" "$3" 2>/dev/null || touch -d "@${5%%.*}" "$3"; } || die "cannot set mode and time of $3"
`

// goesDirect reports whether a file is large enough to travel on its own.
func (v *Volume) goesDirect(size int64, sparse bool) bool {
	return v.opts.Direct > 0 && size >= v.opts.Direct && !sparse
}

// request makes out a request for send. One that would carry an encryption key
// into the sandbox is refused.
func request(b *bytes.Buffer, r *PresignedRequest) error {
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", "", "\r", "").Replace(s) + `"`
	}
	fmt.Fprintf(b, "url = %s\n", quote(r.URL))
	for name, values := range r.Header {
		if strings.Contains(strings.ToLower(name), "customer-key") {
			return fmt.Errorf("Options.Direct would show the sandbox a key with which the bucket encrypts: %w", errors.ErrUnsupported)
		}
		for _, value := range values {
			if !strings.EqualFold(name, "Host") && !strings.EqualFold(name, "Content-Length") {
				fmt.Fprintf(b, "header = %s\n", quote(name+": "+value))
			}
		}
	}
	b.WriteString("header = \"Expect:\"\n\n")
	return nil
}

// readDirect has the sandbox send one file to the bucket. It reports false where
// the file changed meanwhile.
func (s *sandboxed) readDirect(ctx context.Context, f *found, in *intake) (steady bool, err error) {
	sums, steady, err := s.sums(ctx, f)
	if err != nil || !steady {
		in.said = fmt.Sprint(err)
		return false, nil // it has changed or gone; what stays unreadable fails at the end
	}
	in.begin(f)
	defer in.end()
	r := in.cur
	var fresh []int
	for i, sum := range sums {
		size := min(directPiece, f.Size-int64(i)*directPiece)
		blob, isNew := in.blobs.claim(sum, int(size))
		r.pieces = append(r.pieces, &piece{size: size, blob: blob})
		r.size += size
		if isNew {
			fresh = append(fresh, i)
		}
	}
	for len(fresh) > 0 {
		n := min(len(fresh), directBatch)
		if err := s.put(ctx, f, fresh[:n], in); err != nil {
			f.read = nil
			in.blobs.forget(r.pieces)
			in.said = err.Error()
			return false, context.Cause(ctx)
		}
		fresh = fresh[n:]
	}
	return true, nil
}

// forget takes back the claims to contents that were not stored.
func (x *blobIndex) forget(pieces []*piece) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range pieces {
		if p.blob != nil && p.blob.Frame == nil {
			delete(x.all, p.blob.Sum)
		}
	}
}

// sums has the pieces of a file summed up in the sandbox.
func (s *sandboxed) sums(ctx context.Context, f *found) (sums [][32]byte, steady bool, err error) {
	n := (f.Size + directPiece - 1) / directPiece
	var first, last string
	err = s.run(ctx, nil, func(r *bufio.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			line := lines.Text()
			var sum [32]byte
			switch k, err := hex.Decode(sum[:], lines.Bytes()[:min(64, len(line))]); {
			case first == "":
				first = line
			case int64(len(sums)) < n && err == nil && k == 32 && len(line) == 64:
				sums = append(sums, sum)
			case int64(len(sums)) == n && last == "":
				last = line
			default:
				return fmt.Errorf("sum of a piece of %q: %s", clip(f.Path), clip(line))
			}
		}
		return lines.Err()
	}, sumScript, "./"+f.Path, strconv.FormatInt(n, 10))
	is := fmt.Sprintf("%d %d %d", f.Size, f.Mtime.Sec, f.ctime.Sec)
	return sums, first == is && last == is && int64(len(sums)) == n, err
}

// put has some pieces of a file sent.
func (s *sandboxed) put(ctx context.Context, f *found, pieces []int, in *intake) error {
	signer, err := PresignerOf(s.v.bucket)
	if err != nil {
		return err
	}
	var stdin bytes.Buffer
	names := make([]string, len(pieces))
	for k, i := range pieces {
		p := f.read.pieces[i]
		names[k] = hex.EncodeToString(p.blob.Sum[:]) + "." + in.nonce
		r, err := signer.PresignPut(ctx, s.v.packKey(names[k]), p.size, p.blob.Sum[:], directExpires)
		if err != nil {
			return err
		}
		fmt.Fprintln(&stdin, i)
		if err := request(&stdin, r); err != nil {
			return err
		}
	}
	if _, err := runScript(ctx, s.sb, &stdin, putScript, s.dir, "./"+f.Path); err != nil {
		return fmt.Errorf("send %q: %w", clip(f.Path), err)
	}
	for k, i := range pieces {
		p := f.read.pieces[i]
		o, err := s.v.bucket.Stat(ctx, s.v.packKey(names[k]))
		if err == nil && o.Size != p.size {
			err = fmt.Errorf("it has %d bytes, not %d", o.Size, p.size)
		}
		if err != nil {
			return fmt.Errorf("object %s, which the sandbox sent: %w", s.v.packKey(names[k]), err)
		}
		p.blob.Frame = &tree.Frame{Pack: &tree.Pack{Name: names[k]}, Stored: uint32(p.size), Size: uint32(p.size), Raw: true}
		in.added.Add(p.size)
		in.meter.add(0, p.size)
	}
	return nil
}

// directly reports whether a file was stored in pieces that a sandbox can fetch.
func (v *Volume) directly(e *tree.Entry) bool {
	if e.Kind != tree.File || !v.goesDirect(e.Size, false) {
		return false
	}
	left := e.Size
	for _, c := range e.Chunks {
		b := c.Blob
		if b == nil || !b.Frame.Raw || b.Off != 0 || b.Len != b.Frame.Size || c.Size != min(directPiece, left) {
			return false
		}
		left -= c.Size
	}
	return true
}

// fetchDirect has the sandbox fetch one file into the staging directory.
func (s *sandboxStage) fetchDirect(ctx context.Context, e *tree.Entry, m *meter) error {
	signer, err := PresignerOf(s.v.bucket)
	if err != nil {
		return err
	}
	owner := ""
	if s.v.opts.Owners {
		owner = fmt.Sprintf("%d:%d", e.UID, e.GID)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // requests are signed as they are needed, so that none expires before
		var err error
		for i := 0; i < len(e.Chunks) && err == nil; i++ {
			err = s.sign(ctx, signer, w, e.Chunks[i].Blob)
			m.add(0, e.Chunks[i].Size)
		}
		if err != nil && !errors.Is(err, errStopped) {
			cancel(err)
		}
		_ = w.CloseWithError(err) // never fails
		written <- err
	}()
	text, runErr := runScript(ctx, s.sb, r, fetchScript, s.dir, s.id, "./"+e.Path,
		strconv.FormatUint(uint64(e.Mode), 8), tarstream.FormatTime(e.Mtime), owner)
	_ = r.CloseWithError(errStopped)
	err = <-written
	switch {
	case runErr != nil && strings.Contains(text, "damaged "):
		err = fmt.Errorf("%q: %w: contents with SHA-256 %s have another one now", clip(e.Path), ErrCorrupt, text[strings.LastIndex(text, "damaged ")+8:])
	case err != nil && !errors.Is(err, errStopped):
	case runErr != nil:
		err = fmt.Errorf("fetch %q: %w", clip(e.Path), runErr)
	default:
		err = nil
	}
	return err
}

func (s *sandboxStage) sign(ctx context.Context, signer Presigner, w io.Writer, b *tree.Blob) error {
	r, err := signer.PresignGet(ctx, s.v.packKey(b.Frame.Pack.Name), int64(b.Frame.Off), int64(b.Frame.Stored), directExpires)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	fmt.Fprintf(&line, "%x\n", b.Sum)
	if err := request(&line, r); err != nil {
		return err
	}
	_, err = w.Write(line.Bytes())
	return err
}
