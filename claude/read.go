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
			if err := errors.Join(flush(), p.control(&e.env)); err != nil {
				return batch, err
			}
		case e.env.typ == typeResult:
			result := newResultMessage(&e.env)
			e.msg = result
			batch = append(batch, e)
			if err := flush(); err != nil {
				return batch, err
			}
			p.sawResult(result)
		default:
			if e.env.typ == typeSystem && e.env.subtype == "init" {
				p.sawSession(e.env.session)
			}
			batch = append(batch, e)
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

// sawSession notes the conversation's id: some commands begin a new one.
func (p *process) sawSession(id string) {
	if id == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id = id
}

// sawResult notes a result, and ends the turn if it is the turn's.
func (p *process) sawResult(r *ResultMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turn
	if t == nil {
		p.unasked = r
		return
	}
	ends := t.endedBy(r)
	if p.oneShot || ends {
		t.result = r
	}
	switch {
	case !ends:
	case p.oneShot:
		// The turn goes on until the CLI has ended: with work in the
		// background it has more to say.
		p.in.close()
		p.boundBackground()
	default:
		p.endTurn()
	}
}

// endTurn ends the turn's stream. What comes after it waits for the next turn.
// The caller holds mu.
func (p *process) endTurn() {
	p.queue.end()
	close(p.turn.over)
	p.turn = nil
	p.queue = newQueue(p.holds > 0)
}

// boundBackground bounds how long work in the background may go on after the
// result. The caller holds mu.
func (p *process) boundBackground() {
	if wait := p.opts.BackgroundWait; wait != 0 && p.background == nil {
		p.background = time.AfterFunc(max(wait, closeGrace), func() { p.cancel(ErrClosed) })
	}
}
