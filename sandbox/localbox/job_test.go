//go:build linux

package localbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

func init() { childRoles["job"] = childWithJob }

// childWithJob makes a sandbox with a job, prints the sandbox's id and what it reads
// of the job, and goes on so until it is killed.
func childWithJob() int {
	p, err := localbox.Open(&localbox.Options{Dir: os.Getenv("LOCALBOX_TEST_DIR")})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx := context.Background()
	sb, err := p.Create(ctx, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	job, err := sb.StartJob(ctx, &sandbox.JobConfig{Name: "count", Stdin: true,
		Args: []string{"sh", "-c", `i=0; while read -r line && [ "$line" != stop ]; do i=$((i+1)); echo "$i $line"; done; exit 6`}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	out, err := job.Output(ctx, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(sb.ID())
	go func() {
		for {
			if err := job.WriteStdin(ctx, []byte(strings.Repeat("x", 10_000)+"\n")); err != nil {
				fmt.Println(err)
				return
			}
		}
	}()
	_, err = io.Copy(os.Stdout, out)
	fmt.Println(err)
	return 1
}

// TestKillWhileAJobRuns kills the process that started a job while it follows it and
// writes to it: the job goes on, nothing of it is lost, and no half line was sent.
func TestKillWhileAJobRuns(t *testing.T) {
	h := startRole(t, "job", "/proc/self/exe")
	for range 5 {
		if line, err := h.out.ReadString('\n'); err != nil || !strings.HasSuffix(line, "xxx\n") {
			t.Fatalf("the host printed %.20q, %v", line, err)
		}
	}
	h.kill(t)
	sb, err := open(t, h.dir).Attach(testContext(t), h.id)
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, sb)
	job, err := sb.Job(testContext(t), "count")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one more\n", "stop\n"} {
		if err := job.WriteStdin(testContext(t), []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if exit, err := job.Wait(testContext(t)); err != nil || exit.Code != 6 {
		t.Fatalf("exit %v, %v", exit, err)
	}
	out, err := job.Output(testContext(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lines := bufio.NewScanner(out)
	n, more := 0, 0
	for lines.Scan() {
		n++
		number, text, _ := strings.Cut(lines.Text(), " ")
		if text == "one more" { // what was on its way when the host died may follow it
			more++
		} else if text != strings.Repeat("x", 10_000) {
			t.Errorf("line %d has %d bytes: %.20q", n, len(text), text)
		}
		if number != fmt.Sprint(n) {
			t.Errorf("line %d is number %s", n, number)
		}
	}
	if err := lines.Err(); err != nil || n < 6 || more != 1 {
		t.Errorf("%d lines, %d of ours, %v", n, more, err)
	}
}
