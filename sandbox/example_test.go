package sandbox_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// open opens this machine's sandboxes; a program calls localbox.Open(nil). The
// examples also run where nothing can be isolated.
func open() (p *sandbox.Provider, done func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	p, err = localbox.Open(&localbox.Options{Dir: dir, AllowUnisolated: true})
	if err != nil {
		log.Fatal(err)
	}
	return p, func() {
		if err := errors.Join(p.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// example makes one sandbox for an example.
func example(ctx context.Context) (sb *sandbox.Sandbox, done func()) {
	p, closeProvider := open()
	sb, err := p.Create(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	return sb, func() {
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			log.Fatal(err)
		}
		closeProvider()
	}
}

func ExampleProvider_Create() {
	ctx := context.Background()
	p, done := open() // localbox.Open(nil)
	defer done()
	sb, err := p.Create(ctx, &sandbox.Config{
		Env:     map[string]string{"GREETING": "hello"},
		Timeout: time.Hour,
		Tags:    map[string]string{"owner": "acme"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Terminate(context.WithoutCancel(ctx))

	out, err := sb.Command(ctx, "sh", "-c", "echo $GREETING").Output()
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// hello
	// <nil>
}

func ExampleProvider_Attach() {
	ctx := context.Background()
	p, done := open()
	defer done()
	sb, err := p.Create(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	id := sb.ID()
	_ = sb.Close() // let go; it goes on

	sb, err = p.Attach(ctx, id) // in another process, say
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sb.Terminate(ctx))
	_, err = p.Attach(ctx, id)
	fmt.Println(errors.Is(err, sandbox.ErrEnded))
	// Output:
	// <nil>
	// true
}

func ExampleProvider_List() {
	ctx := context.Background()
	p, done := open()
	defer done()
	for _, owner := range []string{"acme", "other"} {
		sb, err := p.Create(ctx, &sandbox.Config{Tags: map[string]string{"owner": owner}})
		if err != nil {
			log.Fatal(err)
		}
		defer sb.Terminate(ctx)
	}
	for info, err := range p.List(ctx, &sandbox.ListOptions{Tags: map[string]string{"owner": "acme"}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(info.State, info.Tags["owner"])
	}
	// Output: running acme
}

func ExampleSandbox_Command() {
	ctx := context.Background()
	sb, done := example(ctx)
	defer done()

	cmd := sb.Command(ctx, "tr", "a-z", "A-Z")
	cmd.Stdin = strings.NewReader("loud\n")
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}

	err := sb.Command(ctx, "sh", "-c", "echo no luck >&2; exit 3").Run()
	if failed, ok := errors.AsType[*sandbox.ExitError](err); ok {
		fmt.Printf("status %d: %s", failed.Code, failed.Stderr)
	}
	err = sb.Command(ctx, "no-such-program").Run()
	fmt.Println(errors.Is(err, exec.ErrNotFound))
	// Output:
	// LOUD
	// status 3: no luck
	// true
}

func ExampleCmd_StdoutPipe() {
	ctx, cancel := context.WithCancel(context.Background())
	sb, done := example(context.Background())
	defer done()

	cmd := sb.Command(ctx, "sh", "-c", "echo started; sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	line := make([]byte, len("started\n"))
	_, _ = io.ReadFull(out, line)
	fmt.Printf("%s", line)
	cancel() // kills the shell and what it started
	fmt.Println(errors.Is(cmd.Wait(), context.Canceled))
	// Output:
	// started
	// true
}

func ExampleSandbox_FS() {
	ctx := context.Background()
	sb, done := example(ctx)
	defer done()

	fsys := sb.FS(ctx)
	if err := fsys.MkdirAll("src/lib", 0o755); err != nil {
		log.Fatal(err)
	}
	if err := fsys.WriteFile("src/lib/a.txt", []byte("hello"), 0o644); err != nil {
		log.Fatal(err)
	}
	_ = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		fmt.Println(path, d.IsDir(), err)
		return err
	})
	_, err := fsys.ReadFile("src/b.txt")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// . true <nil>
	// src true <nil>
	// src/lib true <nil>
	// src/lib/a.txt false <nil>
	// true
}

func ExampleSandbox_Snapshot() {
	ctx := context.Background()
	p, done := open()
	defer done()
	first, err := p.Create(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer first.Terminate(ctx)
	if err := first.FS(ctx).WriteFile("note", []byte("prepared once"), 0o644); err != nil {
		log.Fatal(err)
	}
	image, err := first.Snapshot(ctx) // matches errors.ErrUnsupported where a driver cannot
	if err != nil {
		log.Fatal(err)
	}
	second, err := p.Create(ctx, &sandbox.Config{Image: image})
	if err != nil {
		log.Fatal(err)
	}
	defer second.Terminate(ctx)
	data, err := second.FS(ctx).ReadFile("note")
	fmt.Printf("%s, %v\n", data, err)
	// Output: prepared once, <nil>
}

func ExampleSandbox_Listen() {
	ctx := context.Background()
	sb, done := example(ctx)
	defer done()

	// A service for what runs inside, which may have no network at all.
	l, err := sb.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "served from outside")
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	// From inside it is http://127.0.0.1:PORT; here Dial goes in and back out.
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return sb.Dial(ctx, addr) },
	}}
	resp, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s, %v\n", body, err)
	// Output: served from outside, <nil>
}

func ExampleNewSecret() {
	config := sandbox.Config{Secrets: map[string]sandbox.Secret{"TOKEN": sandbox.NewSecret("s3cret")}}
	fmt.Println(config.Secrets)
	fmt.Println(config.Secrets["TOKEN"].Reveal())
	// Output:
	// map[TOKEN:[redacted]]
	// s3cret
}

// A job goes on when the process that started it is gone; another one finds it by
// its name and follows it from any byte.
func ExampleSandbox_StartJob() {
	ctx := context.Background()
	sb, done := example(ctx)
	defer done()
	name := "build-" + rand.Text()
	_, err := sb.StartJob(ctx, &sandbox.JobConfig{Name: name, Args: []string{"sh", "-c", "echo compiling; read -r answer; echo $answer; exit 3"}, Stdin: true})
	if err != nil {
		log.Fatal(err)
	}

	job, err := sb.Job(ctx, name) // in another process, later
	if err != nil {
		log.Fatal(err)
	}
	if err := job.WriteStdin(ctx, []byte("go on\n")); err != nil {
		log.Fatal(err)
	}
	out, err := job.Output(ctx, int64(len("compiling\n")))
	if err != nil {
		log.Fatal(err)
	}
	defer out.Close()
	text, err := io.ReadAll(out)
	fmt.Printf("%s%v\n", text, err)
	exit, err := job.Wait(ctx)
	fmt.Println(exit.Code, err)
	fmt.Println(job.Remove(ctx))
	// Output:
	// go on
	// <nil>
	// 3 <nil>
	// <nil>
}
