package volume

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"time"
)

// commit is Commit, for who holds mu.
func (m *Mount) commit(ctx context.Context) error {
	if m.readOnly || m.vol.isDeleted() {
		return nil // there is nothing to commit, or nothing to commit to
	}
	err := m.commitChanges(ctx)
	if m.vol.isDeleted() {
		return nil
	}
	return err
}

func (m *Mount) commitChanges(ctx context.Context) error {
	var s scan
	if err := s.walk(ctx, m.data); err != nil {
		return err
	}
	changed, removed, err := m.differences(ctx, s.found)
	if err != nil || len(changed)+len(removed) == 0 {
		return errors.Join(err, s.tooLong)
	}
	puts, err := m.stageAll(ctx, changed, s.found)
	defer m.unstage(puts)
	if err != nil {
		return err
	}
	return errors.Join(m.hand(puts, removed, s.found), s.tooLong)
}

// differences names what the copy has in another form than when it last agreed
// with the volume, parents first, and what it has not any more, children first.
func (m *Mount) differences(ctx context.Context, found map[string]stamp) (changed, removed []string, err error) {
	for p, st := range found {
		h, ok := m.held[p]
		same := ok && h.stamp == st
		if same && h.is {
			same, err = m.settle(ctx, p, h)
			if err != nil {
				return nil, nil, err
			}
		}
		if !same {
			changed = append(changed, p)
		}
	}
	for p := range m.held {
		if _, ok := found[p]; !ok {
			removed = append(removed, p)
		}
	}
	slices.Sort(changed)
	slices.Sort(removed)
	slices.Reverse(removed)
	return changed, removed, nil
}

// settle compares by content a file whose stamp is no proof, and reports whether
// it is the same.
func (m *Mount) settle(ctx context.Context, p string, h held) (bool, error) {
	now := time.Now()
	f, st, err := openRegular(m.data, p, h.stamp)
	if gone(err) {
		return true, nil // the next commit sees it as it is then
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if st != h.stamp {
		return false, nil
	}
	got, err := sum(ctx, f, st.size)
	if err != nil || got != h.sum {
		return false, err
	}
	h.is = fresh(max(st.mtime, st.ctime), now)
	m.held[p] = h
	return true, nil
}

// stageAll copies what has changed to where the volume can take it over from.
// Files that changed into something else meanwhile are left out.
func (m *Mount) stageAll(ctx context.Context, changed []string, found map[string]stamp) ([]change, error) {
	var puts []change
	linked := make(map[uint64]change) // by inode: files with several names
	for _, p := range changed {
		if err := ctx.Err(); err != nil {
			return puts, err
		}
		c := change{path: p, stamp: found[p]}
		if c.kind == regular {
			first, again := linked[c.inode]
			var err error
			if again {
				err = m.stageLink(&c, first)
			} else {
				err = m.stageFile(ctx, &c)
			}
			if gone(err) {
				continue
			}
			if err != nil {
				return append(puts, c), err
			}
			if c.links > 1 && !again {
				linked[c.inode] = c
			}
		}
		puts = append(puts, c)
	}
	return puts, nil
}

func (m *Mount) stageFile(ctx context.Context, c *change) error {
	now := time.Now()
	f, st, err := openRegular(m.data, c.path, c.stamp)
	if err != nil {
		return err
	}
	defer f.Close()
	c.stamp = st
	c.staged, c.blob = m.vol.name()
	if err := copyIn(ctx, m.vol.stage, c.staged, f, st); err != nil {
		return err
	}
	if c.is = fresh(max(st.mtime, st.ctime), now); !c.is {
		return nil
	}
	copied, err := m.vol.stage.Open(c.staged)
	if err != nil {
		return err
	}
	defer copied.Close()
	c.sum, err = sum(ctx, copied, st.size)
	return err
}

// stageLink makes c another name of first.
func (m *Mount) stageLink(c *change, first change) error {
	c.staged, _ = m.vol.name()
	c.stamp, c.blob, c.unsettled = first.stamp, first.blob, first.unsettled
	return m.vol.stage.Link(first.staged, c.staged)
}

// unstage removes what the volume has not taken over.
func (m *Mount) unstage(puts []change) {
	for _, c := range puts {
		if c.staged != "" {
			_ = m.vol.stage.Remove(c.staged) // as a rule it is not there any more
		}
	}
}

// hand gives the volume what is staged, and remembers what it took.
func (m *Mount) hand(puts []change, removed []string, found map[string]stamp) error {
	byPath := make(map[string]change, len(puts))
	for i := range puts {
		byPath[puts[i].path] = puts[i]
		puts[i].path = path.Join(m.prefix, puts[i].path)
	}
	dirs := found
	if m.prefix != "" {
		dirs = make(map[string]stamp)
		for p, st := range maps.All(found) {
			dirs[path.Join(m.prefix, p)] = st
		}
		for i := range removed {
			removed[i] = path.Join(m.prefix, removed[i])
		}
	}
	return m.vol.commit(puts, removed, dirs, func(full string, gen uint64) {
		p := m.relative(full)
		if c, ok := byPath[p]; ok && gen != 0 {
			m.held[p] = held{stamp: c.stamp, gen: gen, unsettled: c.unsettled}
		} else {
			delete(m.held, p)
		}
	})
}

// relative is the path in the copy of a path of the volume.
func (m *Mount) relative(full string) string {
	if m.prefix == "" {
		return full
	}
	return full[len(m.prefix)+1:]
}
