package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// kind is what a frame says.
type kind byte

// The kinds of frames. The scripts have the same numbers.
const (
	kindListen kind = iota + 1 // to the inside: listen on the address; answered by kindDone or kindFail
	kindDial                   // to the inside: connect to the address; answered so too
	kindDone                   // of a listener: with its address; of a dialed connection: it stands
	kindFail                   // with the reason
	kindOpen                   // from the inside: a listener's new connection; the payload is its number
	kindData
	kindEOF    // no more data from this side
	kindReset  // the connection, or the listener, is gone
	kindCredit // so many more bytes may be sent
	kindPing   // somebody is there
)

const (
	headSize = 9
	// Window is how many bytes may be under way on one connection and direction.
	Window = 512 << 10
	// maxPayload bounds a frame.
	maxPayload = 64 << 10
)

// errProtocol: the script inside wrote what is no frame.
var errProtocol = errors.New("the relay inside wrote something else than frames")

type frame struct {
	kind    kind
	id      uint32
	payload []byte
}

func appendFrame(b []byte, k kind, id uint32, payload []byte) []byte {
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// readFrame reads one frame; its payload is valid until the next call with the
// same buf.
func readFrame(r io.Reader, buf *[]byte) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: kind(head[0]), id: binary.BigEndian.Uint32(head[1:])}
	n := binary.BigEndian.Uint32(head[5:])
	if f.kind < kindListen || f.kind > kindPing || n > maxPayload {
		return frame{}, fmt.Errorf("%w: %q", errProtocol, head[:])
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, maxPayload)
	}
	f.payload = (*buf)[:n]
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, errors.Join(errProtocol, err)
	}
	return f, nil
}
