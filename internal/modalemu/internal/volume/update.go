package volume

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// update brings the copy up to what is committed. Where the sandbox has changed
// something that is not committed yet, its change stays, and wins when it is.
func (m *Mount) update(ctx context.Context) error {
	// Nobody replaces files of the volume while they are copied.
	m.vol.mu.RLock()
	defer m.vol.mu.RUnlock()
	if m.vol.deleted {
		return nil
	}
	u := updater{m: m, want: m.vol.below(m.prefix), brought: make(map[uint64][]string)}
	var removed, stale []string
	for p := range m.held {
		if _, ok := u.want[p]; !ok {
			removed = append(removed, p)
		}
	}
	for p, e := range u.want {
		if h, ok := m.held[p]; !ok || h.gen != e.gen {
			stale = append(stale, p)
		}
	}
	slices.Sort(removed)
	slices.Sort(stale)
	for _, p := range slices.Backward(removed) {
		if err := u.remove(p); err != nil {
			return err
		}
	}
	for _, p := range stale {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.bring(ctx, p, u.want[p]); err != nil {
			return err
		}
	}
	return u.relink()
}

// updater is one update.
type updater struct {
	m       *Mount
	want    map[string]entry
	staged  int
	brought map[uint64][]string // names of files with several, by blob
}

// own reports what has the name p now, and whether it is the volume's business:
// it is not when the sandbox has changed it since the last commit.
func (u *updater) own(p string) (now stamp, ours bool, err error) {
	now, err = stampAt(u.m.data, p)
	if err != nil || u.m.readOnly {
		return now, err == nil, err
	}
	h, known := u.m.held[p]
	switch {
	case known:
		ours = now.untouched(h.stamp)
	case now == stamp{}:
		ours = true
	default:
		ours = now.kind == directory && u.want[p].kind == directory
	}
	return now, ours, nil
}

func (u *updater) remove(p string) error {
	_, ours, err := u.own(p)
	if err != nil || !ours {
		return err
	}
	err = u.m.data.Remove(p)
	if occupied(err) {
		return nil
	}
	if err != nil && !gone(err) {
		return err
	}
	delete(u.m.held, p)
	return nil
}

// bring gives p the form it has in the volume.
func (u *updater) bring(ctx context.Context, p string, e entry) error {
	now, ours, err := u.own(p)
	if err != nil || !ours {
		return err
	}
	if e.kind == directory {
		err = u.bringDir(p, e, now)
	} else {
		err = u.bringFile(ctx, p, e, now)
	}
	if gone(err) || occupied(err) {
		return nil // the sandbox has made something else of it, which the next commit sees
	}
	return err
}

func (u *updater) bringDir(p string, e entry, now stamp) error {
	if now.kind != directory {
		if now != (stamp{}) {
			if err := u.m.data.Remove(p); err != nil {
				return err
			}
		}
		if err := u.m.data.Mkdir(p, 0o700); err != nil {
			return err
		}
	}
	if err := own(u.m.data, p, e.stamp); err != nil {
		return err
	}
	st, err := stampAt(u.m.data, p)
	u.m.held[p] = held{stamp: st, gen: e.gen}
	return err
}

// bringFile moves a file or link to p once it is complete.
func (u *updater) bringFile(ctx context.Context, p string, e entry, now stamp) error {
	name := strconv.Itoa(u.staged)
	u.staged++
	fresh, err := u.stage(ctx, name, p, e)
	if err != nil {
		return err
	}
	defer func() { _ = u.m.stage.Remove(name) }() // as a rule it is not there any more
	before, err := stampAt(u.m.stage, name)
	if err != nil {
		return err
	}
	if now.kind == directory {
		if err := u.m.data.Remove(p); err != nil {
			return err
		}
	}
	if err := u.m.root.Rename(path.Join("stage", name), path.Join("data", p)); err != nil {
		return err
	}
	st, err := stampAt(u.m.data, p)
	if err != nil {
		return err
	}
	if first := u.brought[e.blob]; e.kind == regular && len(first) > 0 && u.m.held[first[0]].inode != st.inode && !u.m.readOnly {
		return errChanged // the sandbox has put something else in the place of the first name
	}
	if !st.untouched(before) {
		delete(u.m.held, p) // already written to: the next commit has it
		return nil
	}
	u.m.held[p] = held{stamp: st, gen: e.gen, unsettled: fresh}
	if e.kind == regular && e.links > 1 {
		u.brought[e.blob] = append(u.brought[e.blob], p)
	}
	return nil
}

// stage makes what the volume has at p in the staging directory.
func (u *updater) stage(ctx context.Context, name, p string, e entry) (unsettled, error) {
	m := u.m
	if e.kind == link {
		if err := m.stage.Symlink(e.target, name); err != nil {
			return unsettled{}, err
		}
		return unsettled{}, own(m.stage, name, e.stamp)
	}
	full := path.Join(m.prefix, p)
	if m.readOnly {
		// Nobody writes to it, here or there.
		return unsettled{}, os.Link(filepath.Join(m.vol.root.Name(), filepath.FromSlash(full)), filepath.Join(m.stage.Name(), name))
	}
	if first := u.brought[e.blob]; len(first) > 0 {
		return m.held[first[0]].unsettled, m.root.Link(path.Join("data", first[0]), path.Join("stage", name))
	}
	src, err := m.vol.root.Open(full)
	if err != nil {
		return unsettled{}, err
	}
	defer src.Close()
	now := time.Now()
	if err := copyIn(ctx, m.stage, name, src, e.stamp); err != nil {
		return unsettled{}, err
	}
	// Whoever writes to it from now on gives it another time, unless it is as
	// young as that.
	var un unsettled
	if un.is = fresh(e.mtime, now); un.is {
		un.sum, err = sum(ctx, src, e.size)
	}
	return un, err
}

// relink notes the stamps of files with several names, which a further name
// changes.
func (u *updater) relink() error {
	for _, names := range u.brought {
		for _, p := range names {
			st, err := stampAt(u.m.data, p)
			if err != nil {
				return err
			}
			h := u.m.held[p]
			if st.untouched(h.stamp) {
				h.stamp = st
				u.m.held[p] = h
			}
		}
	}
	return nil
}
