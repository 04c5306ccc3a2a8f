package claude

import (
	"strings"
	"testing"
)

func TestPlatformName(t *testing.T) {
	musl, glibc := func() bool { return true }, func() bool { return false }
	for _, test := range []struct {
		goos, goarch string
		musl         func() bool
		want         string
	}{
		{"linux", "amd64", glibc, "linux-x64"},
		{"linux", "amd64", musl, "linux-x64-musl"},
		{"linux", "arm64", glibc, "linux-arm64"},
		{"linux", "arm64", musl, "linux-arm64-musl"},
		{"darwin", "arm64", musl, "darwin-arm64"},
		{"darwin", "amd64", glibc, "darwin-x64"},
	} {
		got := platformName(test.goos, test.goarch, test.musl)
		if got != test.want {
			t.Errorf("platformName(%s, %s) = %s, want %s", test.goos, test.goarch, got, test.want)
		}
		if platforms[got] == "" {
			t.Errorf("%s is not pinned", got)
		}
	}
}

func TestTailHidesALoginThatIsCut(t *testing.T) {
	const line = "at https://joe:s3cret@npm.example/x "
	for n := range len(line) {
		var tail tail
		_, _ = tail.Write([]byte(line + strings.Repeat("y ", (tailSize-n)/2))) // a tail takes everything
		if s := tail.String(); strings.Contains(s, "cret") {
			t.Fatalf("a login is left in %q", s[:50])
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("npm error https://joe:s3cret@npm.example/x"), 7)
	f.Add([]byte("\xff\xfe://@ ://a@"), 0)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		var tail tail
		cut = min(max(cut, 0), len(data))
		for _, part := range [][]byte{data[:cut], data[cut:]} {
			if n, err := tail.Write(part); n != len(part) || err != nil {
				t.Fatalf("Write(%d bytes) = %d, %v", len(part), n, err)
			}
		}
		if len(tail.kept) > tailSize {
			t.Fatalf("kept %d bytes", len(tail.kept))
		}
		if s := tail.String(); urlLogin.MatchString(s) {
			t.Fatalf("a login is left in %q", s)
		}
	})
}
