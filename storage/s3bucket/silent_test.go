package s3bucket_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// silent accepts connections and never answers. It gives its URL.
func silent(t *testing.T, reads bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			if reads {
				wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

func TestSilentServerIsGivenUp(t *testing.T) {
	for name, reads := range map[string]bool{"takes everything": true, "takes nothing": false} {
		t.Run(name, func(t *testing.T) {
			cfg := &s3bucket.Config{Endpoint: silent(t, reads), AccessKeyID: "access", SecretAccessKey: "secret", Attempts: 2}
			b, err := s3bucket.OpenImpatient(t.Context(), "bucket", cfg, &s3bucket.Options{PartSize: 64 * mib}, 50*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := b.Verify(ctx); err == nil {
				t.Error("Verify went well")
			}
			if _, err := b.Get(ctx, "key", 0, -1); err == nil {
				t.Error("Get went well")
			}
			// More than the kernel takes on the server's behalf.
			if err := b.Put(ctx, "key", bytes.NewReader(make([]byte, 32*mib)), nil); err == nil {
				t.Error("Put went well")
			}
			if ctx.Err() != nil {
				t.Error("the context had to end it")
			}
		})
	}
}
