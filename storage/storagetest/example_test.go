package storagetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func ExampleFaulty() {
	bucket := &storagetest.Faulty{
		Bucket: new(storagetest.Memory),
		Plan:   storagetest.Nth(2, storagetest.LoseAnswer),
	}
	for _, key := range []string{"one", "two", "three"} {
		err := bucket.Put(context.Background(), key, strings.NewReader("x"), nil)
		fmt.Println(key, errors.Is(err, storagetest.ErrInjected))
	}
	_, err := bucket.Stat(context.Background(), "two")
	fmt.Println("two was stored:", err == nil)
	// Output:
	// one false
	// two true
	// three false
	// two was stored: true
}

// A crash test: the work dies at its first call of the bucket, at its second, and
// so on, each time before the bucket acted. What is left must make sense.
func ExampleCrash() {
	work := func(b storage.Bucket) {
		for _, key := range []string{"data", "index"} { // the index comes last
			if err := b.Put(context.Background(), key, strings.NewReader("x"), nil); err != nil {
				return
			}
		}
	}
	for n := 1; ; n++ {
		memory := new(storagetest.Memory)
		faulty := &storagetest.Faulty{Bucket: memory, Plan: storagetest.Crash(n, storagetest.Fail.With(storagetest.ErrTimeout))}
		work(faulty)
		_, noIndex := memory.Stat(context.Background(), "index")
		_, noData := memory.Stat(context.Background(), "data")
		fmt.Printf("crash at call %d: whole or absent: %v\n", n, noIndex != nil || noData == nil)
		if faulty.Injected() == 0 {
			break // the work was over before
		}
	}
	// Output:
	// crash at call 1: whole or absent: true
	// crash at call 2: whole or absent: true
	// crash at call 3: whole or absent: true
}

func ExampleFlipByte() {
	memory := new(storagetest.Memory)
	_ = memory.Put(context.Background(), "key", strings.NewReader("found"), nil)
	if err := storagetest.FlipByte(context.Background(), memory, "key", 0); err != nil {
		fmt.Println(err)
	}
	r, err := memory.Get(context.Background(), "key", 0, -1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	data, _ := io.ReadAll(r)
	fmt.Printf("%s\n", data)
	// Output: gound
}

// Every first request is answered with 503 SlowDown. The Target is a real S3 server.
func ExampleProxy() {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	proxy := &storagetest.Proxy{
		Target: server.URL,
		Plan:   storagetest.First("", 1, storagetest.Fail.With(storagetest.ErrSlowDown)),
	}
	front := httptest.NewServer(proxy) // what the client takes for the S3 server
	defer front.Close()
	for range 2 {
		resp, err := http.Get(front.URL + "/bucket/key")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(resp.StatusCode, resp.Body.Close())
	}
	fmt.Println(proxy.Count(storagetest.OpGet), proxy.Requests()[1].Key)
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 503 <nil>
	// 404 <nil>
	// 2 key
}

func ExampleExercise() {
	// In a test file of one's own bucket:
	_ = func(t *testing.T) {
		storagetest.Exercise(t, func(*testing.T) storage.Bucket { return new(storagetest.Memory) })
	}
}
