package broker

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
)

// minRedacted is the length in bytes below which a key is no secret worth the
// name, and would turn up in answers by chance.
const minRedacted = 12

// secretLike is what may be a key or a token that somebody put in the wrong place.
var secretLike = regexp.MustCompile(`[A-Za-z0-9_+/=-]{24,}`)

// clean makes what came from inside fit for a log.
func clean(s string) string {
	const most = 128
	if len(s) > 4*most {
		s = s[:4*most]
	}
	s = secretLike.ReplaceAllString(strings.ToValidUTF8(s, "?"), redacted)
	return s[:min(len(s), most)]
}

// redactor is the body of an answer with every appearance of the key replaced
// by as many asterisks, so that its length stays. It holds back only bytes that
// may be the beginning of the key, so a stream whose pieces end with a newline
// is not delayed.
type redactor struct {
	response *http.Response
	body     io.ReadCloser
	key      []byte
	chunk    []byte // read buffer
	ready    []byte // checked, to be handed out
	held     []byte // may be the beginning of the key
	err      error  // of body, once everything before it is handed out
}

func newRedactor(response *http.Response, key Key) *redactor {
	return &redactor{response: response, body: response.Body, key: []byte(key.value()), chunk: make([]byte, 16<<10)}
}

func (r *redactor) Read(p []byte) (int, error) {
	for len(r.ready) == 0 && r.err == nil {
		n, err := r.body.Read(r.chunk)
		r.take(r.chunk[:n])
		if err != nil {
			r.ready, r.held, r.err = append(r.ready, r.held...), nil, err
			r.response.Trailer = nil // filled in by now; nothing in it is for the inside
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

func (r *redactor) take(piece []byte) {
	data := append(r.held, piece...)
	for at := 0; ; {
		i := bytes.Index(data[at:], r.key)
		if i < 0 {
			break
		}
		copy(data[at+i:], bytes.Repeat([]byte("*"), len(r.key)))
		at += i + len(r.key)
	}
	keep := min(len(data), len(r.key)-1)
	for !bytes.HasPrefix(r.key, data[len(data)-keep:]) {
		keep--
	}
	r.ready = data[:len(data)-keep]
	r.held = bytes.Clone(data[len(data)-keep:])
}

func (r *redactor) Close() error { return r.body.Close() }
