package modalbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// shell runs what this package does inside.
const shell = "/bin/sh"

// scriptTimeout is when Modal ends a script that hangs, on a dead mount for one.
const scriptTimeout = 5 * time.Minute

// script runs a short POSIX shell script and returns what it printed and the
// status of its last command. The status comes with the output, which saves a
// round trip; so the script must not call exit.
func (b *box) script(ctx context.Context, text string, args ...string) (out []byte, code int, err error) {
	return b.scriptIn(ctx, "/", text, args...)
}

// scriptIn is script in a directory; "" is where Modal starts commands.
func (b *box) scriptIn(ctx context.Context, dir, text string, args ...string) (out []byte, code int, err error) {
	if err := b.usable(ctx); err != nil {
		return nil, 0, err
	}
	cp, err := b.runIn(ctx, dir, "exec 2>&1 </dev/null;LC_ALL=C;export LC_ALL;"+text+"\nprintf '\\n%d' \"$?\"", args...)
	if err != nil {
		return nil, 0, b.explain(ctx, "run a script", err)
	}
	defer closing(ctx, cp.Stdout)()
	out, err = io.ReadAll(cp.Stdout)
	if err != nil {
		return nil, 0, b.explain(ctx, "run a script", err)
	}
	i := bytes.LastIndexByte(out, '\n')
	code, err = strconv.Atoi(string(out[i+1:]))
	if i < 0 || err != nil {
		err = fmt.Errorf("the script printed %.100q, and no status: the image needs a POSIX shell at %s", out, shell)
		return nil, 0, b.explain(ctx, "run a script", fmt.Errorf("%w: %w", driver.ErrInvalid, err))
	}
	return out[:i], code, nil
}

// run starts a script with its arguments, whatever bytes these are.
func (b *box) run(ctx context.Context, text string, args ...string) (*modal.ContainerProcess, error) {
	return b.runIn(ctx, "/", text, args...)
}

func (b *box) runIn(ctx context.Context, dir, text string, args ...string) (*modal.ContainerProcess, error) {
	command := []string{shell, "-c", decoded(args) + text, shell}
	for _, a := range args {
		if !utf8.ValidString(a) {
			a = ""
		}
		command = append(command, a)
	}
	return b.sb.Exec(ctx, command, &modal.SandboxExecParams{Stderr: modal.Ignore, Timeout: scriptTimeout, Workdir: dir})
}

// decoded is a script that puts back those arguments that are not UTF-8, which
// protocol buffers do not carry.
func decoded(args []string) string {
	var set strings.Builder
	found := false
	for i, a := range args {
		if utf8.ValidString(a) {
			fmt.Fprintf(&set, ` "${%d}"`, i+1)
			continue
		}
		found = true
		fmt.Fprintf(&set, ` "$(printf '%s')"`, octal(a)) // a name that ends in a newline loses it
	}
	if !found {
		return ""
	}
	return "set --" + set.String() + "\n"
}

// octal writes bytes as printf(1) reads them.
func octal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\%03o`, s[i])
	}
	return b.String()
}

// closing ends a stream when ctx does. The caller calls what it returns, which
// ends the stream too.
func closing(ctx context.Context, c io.Closer) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return func() {
		stop()
		_ = c.Close()
	}
}

// lastLine is what a script said at last, an error as a rule.
func lastLine(out []byte) string {
	text := strings.TrimRight(string(out), "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// quote makes one word of the shell's of any string.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
