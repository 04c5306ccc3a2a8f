package broker

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
)

func FuzzRedactor(f *testing.F) {
	f.Add([]byte("a key-key-key-key b key-key-key-"), uint8(3))
	f.Add([]byte("key-key-key-key-key-key-key-key"), uint8(1))
	f.Add([]byte("key-key-kekey-key-key-key"), uint8(0))
	key := APIKey("key-key-key-key")
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		var source io.Reader = bytes.NewReader(data)
		switch how % 4 {
		case 1:
			source = iotest.OneByteReader(source)
		case 2:
			source = iotest.HalfReader(source)
		case 3:
			source = iotest.DataErrReader(source)
		}
		got, err := io.ReadAll(newRedactor(&http.Response{Body: io.NopCloser(source)}, key))
		if err != nil {
			t.Fatal(err)
		}
		value := []byte(key.value())
		want := bytes.ReplaceAll(data, value, bytes.Repeat([]byte("*"), len(value)))
		if !bytes.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func FuzzAllowed(f *testing.F) {
	for _, target := range []string{"/v1/messages", "/v1/models/a", "//v1/messages", "/v1/models/..%2f", "http://x/v1/messages", "/v1/messages?x#y"} {
		f.Add("POST", target)
		f.Add("GET", target)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		r, err := http.NewRequest(method, target, nil)
		if err != nil {
			return
		}
		path, ok := allowed(r)
		if !ok {
			return
		}
		if path != "/v1/messages" && path != "/v1/messages/count_tokens" && !modelPath.MatchString(path) {
			t.Fatalf("%s %s passes as %s", method, target, path)
		}
		if r.URL.EscapedPath() != path {
			t.Fatalf("%s %s is encoded as %s", method, target, r.URL.EscapedPath())
		}
	})
}
