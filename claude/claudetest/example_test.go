package claudetest_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

// A test that runs the real CLI: it writes a file because the script says so.
func Example_cli() {
	_ = func(t *testing.T) {
		dir := t.TempDir()
		srv := claudetest.Start(t, claudetest.Sequence(
			claudetest.Tool("Write", map[string]any{"file_path": dir + "/a.txt", "content": "hi"}),
			claudetest.Text("Done."),
		))
		cmd := exec.Command("claude", "-p", "make a.txt", "--allowedTools=Write")
		cmd.Env = append(srv.Env(), "HOME="+t.TempDir(), "PATH="+os.Getenv("PATH"))
		if out, err := cmd.Output(); err != nil || string(out) != "Done.\n" {
			t.Errorf("claude said %q, %v", out, err)
		}
	}
}

// Any client of the Messages API can be tested against a script.
func Example() {
	srv, err := claudetest.NewServer(claudetest.Sequence(
		claudetest.Text("Hello!"),
		claudetest.Overloaded(),
	), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	for range 2 {
		resp, err := http.Post(srv.URL+"/v1/messages", "application/json", strings.NewReader(
			`{"model":"any","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(resp.StatusCode, strings.Contains(string(body), "Hello!"))
		if err := resp.Body.Close(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(srv.Requests()[0].Prompt())
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 200 true
	// 529 false
	// hi
}

// A gate holds the model back in the middle of a sentence.
func ExampleGate() {
	var gate claudetest.Gate
	script := claudetest.Join(claudetest.Text("one"), gate.Wait, claudetest.Text(" two"))
	srv, err := claudetest.NewServer(script, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	go func() {
		<-gate.Reached()
		gate.Open()
	}()
	resp, err := http.Post(srv.URL+"/v1/messages", "application/json", strings.NewReader(
		`{"messages":[{"role":"user","content":"count"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(body), "one two"))
	http.DefaultClient.CloseIdleConnections()
	// Output: true
}

// The script behind a demonstration that has no API key.
func ExamplePrompted() {
	srv, err := claudetest.NewServer(claudetest.Prompted(), &claudetest.Options{Keep: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	resp, err := http.Post(srv.URL+"/v1/messages", "application/json", strings.NewReader(
		`{"messages":[{"role":"user","content":"run: ls -l"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(body), `"input":{"command":"ls -l"`))
	http.DefaultClient.CloseIdleConnections()
	// Output: true
}

// Answers that depend on what is asked, and what the model was asked in the end.
func ExampleWhen() {
	srv, err := claudetest.NewServer(claudetest.When(
		claudetest.Case{Match: claudetest.SystemHas("pirate"), Script: claudetest.Text("Arr!")},
		claudetest.Case{Script: claudetest.Text("Hello.")},
	), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	resp, err := http.Post(srv.URL+"/v1/messages", "application/json", strings.NewReader(
		`{"system":"You are a pirate.","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(body), "Arr!"))
	fmt.Printf("%+v\n", srv.Find(claudetest.PromptHas("hi"))[0].Conversation())
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// true
	// [{Role:user Type:text Text:hi Tool: Input:map[] IsError:false}]
}
