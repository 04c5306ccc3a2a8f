// Package s3test runs real S3 servers, versitygw and rclone, for tests.
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

// Kind is a server's program. Its binary is at the path in the environment variable
// Variable or, where that is unset, on PATH or in .tools/bin under the root of
// the repository.
type Kind struct {
	Name     string
	Variable string
	// command gives the arguments and the environment of a server for s.
	command func(s *Server, address, dir string) (args, env []string)
}

// Versitygw is the server that does all that package s3bucket asks for.
var Versitygw = Kind{"versitygw", "VIVARIUM_VERSITYGW", func(s *Server, address, dir string) (args, env []string) {
	// Its metadata goes to files of their own, as not every file system has
	// extended attributes.
	args = []string{"--port", address, "--keep-alive", "--quiet", "posix", "--sidecar", filepath.Join(dir, "sidecar"), filepath.Join(dir, "data")}
	return args, []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
}}

// Rclone is "rclone serve s3", another implementation of the protocol.
var Rclone = Kind{"rclone", "VIVARIUM_RCLONE", func(s *Server, address, dir string) (args, env []string) {
	args = []string{"serve", "s3", "--config", filepath.Join(dir, "rclone.conf"), "--cache-dir", filepath.Join(dir, "cache"), "--addr", address,
		"--auth-key", s.AccessKey + "," + s.SecretKey, filepath.Join(dir, "data")}
	return args, []string{"HOME=" + dir}
}}

// Server is a running server with one bucket. It lives in a temporary directory
// and ends with the test that started it.
type Server struct {
	Endpoint  string
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
}

// Start runs versitygw on a free loopback port and makes a bucket. It skips the test
// where the server's binary is absent.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartKind(t, Versitygw)
}

// StartKind is Start for a kind of server.
func StartKind(t testing.TB, kind Kind) *Server {
	t.Helper()
	binary := find(t, kind)
	s := &Server{Region: "us-east-1", AccessKey: "test-access", SecretKey: "test-secret-of-s3test", Bucket: "workspaces"}
	// The port is free when it is chosen; another process may take it before the
	// server does, which then ends at once.
	var err error
	for range 5 {
		if err = s.run(t, kind, binary); err == nil {
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

func find(t testing.TB, kind Kind) string {
	t.Helper()
	if path := os.Getenv(kind.Variable); path != "" {
		return path
	}
	if path, err := exec.LookPath(kind.Name); err == nil {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, ".tools", "bin", kind.Name)
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
		if filepath.Dir(dir) == dir {
			t.Skipf("%s is absent (not in $%s, on PATH, or in .tools/bin); run make tools", kind.Name, kind.Variable)
		}
		dir = filepath.Dir(dir)
	}
}

// run starts the server and waits until it answers.
func (s *Server) run(t testing.TB, kind Kind, binary string) error {
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
	args, env := kind.command(s, address, dir)
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = dir, env
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
