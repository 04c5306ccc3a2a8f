package peerbench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// ground is what all contenders stand on: one server, one directory in memory.
type ground struct {
	ctx     context.Context // ends with the benchmark, and when it is interrupted
	server  *s3test.Server
	dir     string
	traffic traffic
}

// traffic counts what clients of the SDK send.
type traffic struct{ requests, bytes atomic.Int64 }

const memory, groundPrefix = "/dev/shm", "vivarium-bench-"

// newGround makes a directory in memory (where there is none, a temporary one),
// and a server in it. Both are gone when the benchmark ends, and when it is
// interrupted; what a killed run left is removed by the next.
func newGround(b *testing.B) *ground {
	b.Helper()
	parent := os.TempDir()
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		parent = memory
		sweep(parent)
	}
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", groundPrefix, os.Getpid()))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(b.Context(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process
	b.Cleanup(func() {
		stop()
		if err := os.RemoveAll(dir); err != nil {
			b.Errorf("clean-up: %v", err)
		}
	})
	b.Setenv("TMPDIR", dir) // for the server's b.TempDir
	return &ground{ctx: ctx, server: s3test.Start(b), dir: dir}
}

// sweep removes the directories of runs whose process is gone.
func sweep(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, groundPrefix+"*"))
	for _, dir := range left {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groundPrefix), "-")
		pid, err := strconv.Atoi(text)
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(dir)
		}
	}
}

// sub makes a directory.
func (g *ground) sub(b *testing.B, name string) string {
	b.Helper()
	dir := filepath.Join(g.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	return dir
}

type countingClient struct {
	traffic *traffic
	client  *awshttp.BuildableClient
}

func (c countingClient) Do(req *http.Request) (*http.Response, error) {
	c.traffic.requests.Add(1)
	c.traffic.bytes.Add(max(0, req.ContentLength))
	return c.client.Do(req)
}

// client makes a client of its own, with connections of its own, as a fresh
// process would have.
func (g *ground) client() *s3.Client {
	return g.server.Client(func(o *s3.Options) { o.HTTPClient = countingClient{&g.traffic, awshttp.NewBuildableClient()} })
}

func (g *ground) bucket(prefix string) *s3bucket.Bucket {
	return s3bucket.New(g.client(), g.server.Bucket, &s3bucket.Options{Prefix: prefix, Checksums: s3bucket.ChecksumsOn})
}

// empty deletes all objects below a prefix.
func (g *ground) empty(ctx context.Context, prefix string) error {
	client := g.server.Client()
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &g.server.Bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		var ids []types.ObjectIdentifier
		for _, object := range page.Contents {
			ids = append(ids, types.ObjectIdentifier{Key: object.Key})
		}
		if len(ids) == 0 {
			continue
		}
		in := &s3.DeleteObjectsInput{Bucket: &g.server.Bucket, Delete: &types.Delete{Objects: ids}}
		if _, err := client.DeleteObjects(ctx, in); err != nil {
			return err
		}
	}
	return nil
}
