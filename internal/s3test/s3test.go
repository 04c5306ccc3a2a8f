// Package s3test runs a real S3 server, versitygw, for tests.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Variable names the environment variable that holds the path of versitygw's
// binary. Where it is unset, the binary is looked for on PATH and then in
// .tools/bin under the root of the repository.
const Variable = "VIVARIUM_VERSITYGW"

// Server is a running server with one bucket. It lives in a temporary directory
// and ends with the test that started it.
type Server struct {
	Endpoint  string
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
}

// Start runs a server on a free loopback port and makes a bucket. It skips the test
// where the server's binary is absent.
func Start(t testing.TB) *Server {
	t.Helper()
	binary := find(t)
	s := &Server{Region: "us-east-1", AccessKey: "test-access", SecretKey: "test-secret-of-s3test", Bucket: "workspaces"}
	// The port is free when it is chosen; another process may take it before the
	// server does, which then ends at once.
	var err error
	for range 5 {
		if err = s.run(t, binary); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	if _, err := s.Client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.Bucket}); err != nil {
		t.Fatalf("s3test: make bucket: %v", err)
	}
	return s
}

// Client gives a client for the server, with the SDK's own defaults.
func (s *Server) Client(options ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint),
		Region:       s.Region,
		Credentials:  credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
		UsePathStyle: true,
		// These are for addresses that are not Amazon's, as in s3bucket.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}, options...)
}

func find(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(Variable); path != "" {
		return path
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, ".tools", "bin", "versitygw")
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
		if filepath.Dir(dir) == dir {
			t.Skipf("versitygw is absent (not in $%s, on PATH, or in .tools/bin); run make tools", Variable)
		}
		dir = filepath.Dir(dir)
	}
}

// run starts the server and waits until it answers.
func (s *Server) run(t testing.TB, binary string) error {
	dir, err := dataDir(t)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s.Endpoint = "http://" + address
	words := &output{}
	// Its metadata goes to files of their own, as not every file system has
	// extended attributes.
	cmd := exec.Command(binary, "--port", address, "--keep-alive", "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "sidecar"), filepath.Join(dir, "data"))
	cmd.Dir = dir
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	cmd.Stdout, cmd.Stderr = words, words
	cmd.SysProcAttr = endWithParent()
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(exited)
		// The parent that Pdeathsig means is this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed at the end; before, its words say why
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL) // it may be gone
		<-exited
	})
	t.Cleanup(stop)
	if err := answers(s.Endpoint, exited); err != nil {
		stop()
		return fmt.Errorf("%w: %s", err, words)
	}
	return nil
}

// output collects what the server prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func dataDir(t testing.TB) (string, error) {
	dir := t.TempDir()
	for _, name := range []string{"data", "sidecar"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// answers polls until the server gives any HTTP answer.
func answers(endpoint string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(req); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("the server ended")
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer")
		case <-tick.C:
		}
	}
}
