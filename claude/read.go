package claude

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// read passes on what the CLI writes until it writes no more.
func (p *process) read(stdout io.Reader) error {
	lines := lineReader{r: stdout, limit: p.opts.MaxLine}
	var scan scanner
	var batch []entry
	for {
		whole, err := lines.next()
		var refused error
		batch, refused = p.deliver(&scan, whole, batch)
		if refused != nil {
			return refused
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deliver puts lines where they belong, up to one after which the run cannot go
// on. batch is memory to use again.
func (p *process) deliver(scan *scanner, lines [][]byte, batch []entry) ([]entry, error) {
	batch = batch[:0]
	flush := func() error {
		err := p.current().push(batch)
		clear(batch)
		batch = batch[:0]
		return err
	}
	for _, line := range lines {
		if line == nil {
			tooLong := &LineTooLongError{Limit: p.opts.MaxLine}
			if p.starting() {
				return batch, errors.Join(flush(), tooLong)
			}
			batch = append(batch, entry{err: tooLong})
			continue
		}
		e := readLine(scan, line)
		switch {
		case e.err != nil:
			batch = append(batch, e)
		case isControl(e.env.typ):
			env := e.env // e itself stays off the heap
			if err := errors.Join(flush(), p.control(&env)); err != nil {
				return batch, err
			}
		case e.env.typ == typeResult:
			result := newResultMessage(&e.env)
			e.msg = result
			batch = append(batch, e)
			if err := flush(); err != nil {
				return batch, err
			}
			own := e
			p.sawResult(&own, result)
		default:
			batch = append(batch, e)
			p.saw(&batch[len(batch)-1])
		}
	}
	return batch, flush()
}

// readLine reads the envelope of a line as it came.
func readLine(scan *scanner, line []byte) entry {
	content, whole := bytes.CutSuffix(line, []byte("\n"))
	env, err := scan.scan(content)
	if err == nil {
		return entry{env: env, line: line}
	}
	if !whole {
		err = errors.Join(io.ErrUnexpectedEOF, err)
	}
	return entry{line: line, err: &ProtocolError{Line: content, Err: err}}
}

func (p *process) current() *queue {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue
}

// saw looks at a message that says how the CLI is getting on.
func (p *process) saw(e *entry) {
	switch e.env.typ {
	case typeSystem, "command_lifecycle", "conversation_reset":
	default:
		return
	}
	if e.env.typ == typeSystem && e.env.subtype != "init" && e.env.subtype != "background_tasks_changed" && e.env.subtype != "session_state_changed" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m := e.message().(type) {
	case *InitMessage:
		p.begunTurn = true
		if id := m.SessionID(); id != "" { // some commands begin a new one
			p.id = id
		}
	case *ConversationResetMessage:
		if m.NewConversationID != "" {
			p.id = m.NewConversationID
		}
	case *BackgroundTasksChangedMessage:
		p.tasks = m.Tasks
		p.endWhenIdle()
		p.wake()
	case *SessionStateChangedMessage:
		p.state = m.State
		p.endWhenIdle()
		p.wake()
	case *CommandLifecycleMessage:
		if m.State == "cancelled" {
			p.cancelled(m.PromptID)
		}
	}
}

// cancelled ends a turn that waits and whose prompt the CLI has dropped. One that
// has begun ends with its result. The caller holds mu.
func (p *process) cancelled(promptID string) {
	p.endTurns(func(t *turn, first bool) bool {
		if first || t.id != promptID {
			return false
		}
		t.dropped = true
		return true
	})
}

// sawResult notes a result, and ends the turns whose it is. The line has gone to
// the stream of the first turn.
func (p *process) sawResult(e *entry, r *ResultMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putOffUse = ""
	if len(p.turns) == 0 || p.starting() && r.IsError {
		p.unasked = r
	}
	if len(p.turns) == 0 || p.wentOn(r) {
		return
	}
	if t := p.turns[0]; p.oneShot {
		t.result = r
		if t.endedBy(r, true) {
			// The turn goes on until the CLI has ended: with work in the
			// background it has more to say.
			p.answered = true
			p.boundBackground()
			p.endWhenIdle()
		}
		return
	}
	p.endTurns(func(t *turn, first bool) bool {
		if !t.endedBy(r, first) {
			return false
		}
		t.result = r
		if !first { // which became part of another turn
			_ = t.queue.push([]entry{*e}) // it is empty
		}
		return true
	})
}

// wentOn reports whether a result is that of what the CLI went on with by itself,
// before a prompt that waits. The caller holds mu.
func (p *process) wentOn(r *ResultMessage) bool {
	if !p.goesOn || r.Origin == originTask {
		return false
	}
	p.goesOn = false
	return !p.turns[0].promptless && len(r.PromptIDs) == 0
}

// endWhenIdle ends the input of a CLI that has answered its only prompt, when
// nothing is left to do: it ends itself then. The end of its input earlier would
// do too, but with work in the background it looks for that only every half
// minute. The caller holds mu.
func (p *process) endWhenIdle() {
	switch {
	case !p.answered || p.hasTasks():
	case p.state == "" || p.state == "idle":
		p.in.close()
	case p.idling == nil: // it says so at once, as a rule
		p.idling = time.AfterFunc(closeGrace, p.in.close)
	}
}

// boundBackground bounds how long work in the background may go on after the
// result. The caller holds mu.
func (p *process) boundBackground() {
	if wait := p.opts.BackgroundWait; wait != 0 && p.background == nil {
		p.background = time.AfterFunc(max(wait, closeGrace), func() { p.cancel(ErrClosed) })
	}
}
