package sandboxhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"strings"

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// lines is the writer of a run's log, and of what followers of this server are sent. What
// is shown is in the sandbox's journal, so it need not be in the log before.
type lines struct {
	w    runlog.Writer // nil where logs are not kept
	log  *eventlog.Log // has as many lines as w, or those that w did not take besides
	n    int64         // lines in w
	size int64         // their bytes
}

// shown is how many lines followers have.
func (l *lines) shown() int64 {
	last, _ := l.log.Last()
	return int64(last)
}

// Info implements runlog.Writer.
func (l *lines) Info() runlog.Info { return runlog.Info{Lines: l.n, Bytes: l.size} }

// Append implements runlog.Writer. Lines that a log did not take before are shown once.
func (l *lines) Append(ctx context.Context, lines [][]byte) error {
	for i, line := range lines {
		if l.n+int64(i) < l.shown() {
			continue
		}
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		l.log.Append(eventName(line), line)
	}
	if l.w != nil {
		if err := l.w.Append(ctx, lines); err != nil {
			return err
		}
	}
	for _, line := range lines {
		l.n++
		l.size += int64(len(line))
	}
	return nil
}

// Finish implements runlog.Writer.
func (l *lines) Finish(ctx context.Context, end runlog.End) error {
	if l.w == nil {
		return nil
	}
	if err := l.w.Finish(ctx, end); !errors.Is(err, runlog.ErrEnded) {
		return err
	}
	return nil
}

// Close implements runlog.Writer. The lease can be had again.
func (l *lines) Close() error {
	if l.w == nil {
		return nil
	}
	w := l.w
	l.w = nil
	return w.Close()
}

// eventName is what a line's event is called: "control" where the CLI and this server
// talk about the conversation, and the default for all else. A line that only may be
// such a one is looked at closely.
func eventName(line []byte) string {
	if !bytes.Contains(line, []byte(`"control_`)) && !bytes.Contains(line, []byte(`"keep_alive"`)) {
		return ""
	}
	var l struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(line, &l) == nil && (strings.HasPrefix(l.Type, "control_") || l.Type == "keep_alive") {
		return "control"
	}
	return ""
}

// older gives the lines of a run that this process does not hold. Nil: nobody does. A log
// that is not there, or is damaged, has no more of them; another that cannot be read may
// have them the next time.
func (h *Handler) older(run string) eventlog.Older {
	logs := h.config.Logs
	if logs == nil {
		return nil
	}
	return func(ctx context.Context, from, to uint64) iter.Seq2[eventlog.Event, error] {
		return func(yield func(eventlog.Event, error) bool) {
			for line, err := range logs.Read(ctx, run, int64(from)) {
				if err != nil && ctx.Err() == nil {
					h.log.Error("cannot read the log of a run", "run", run, "error", err)
				}
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, runlog.ErrCorrupt) {
					return
				}
				e := event(line)
				if e.ID > to && err == nil || !yield(e, err) {
					return
				}
			}
		}
	}
}

// event is a line as its followers get it.
func event(line runlog.Line) eventlog.Event {
	data := bytes.TrimSuffix(line.Data, []byte{'\n'})
	return eventlog.Event{ID: uint64(line.N), Name: eventName(data), Data: data}
}
