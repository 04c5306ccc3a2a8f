//go:build unix

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
)

// leftover is how old an unfinished snapshot must be to be nobody's.
const leftover = 24 * time.Hour

// Sweep puts an end to what has no living owner, and forgets what ended long
// ago. One that cannot be removed keeps nobody from the others: the error says
// what is left, and the next sweep tries again.
func (d *Dir) Sweep() error {
	ids, err := d.IDs()
	if err != nil {
		return err
	}
	errs := []error{d.sweepSnapshots(), d.sweepScratch()}
	for _, id := range ids {
		if _, err := d.Check(id); !errors.Is(err, driver.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, d.sweepUnfinished(id))
	}
	return errors.Join(errs...)
}

// Check reads a record and makes it true first: a sandbox whose processes are
// gone is put to an end, one that ended long ago is forgotten. Where something
// of a sandbox that has ended cannot be removed, both the record and an error
// are returned.
func (d *Dir) Check(id string) (*Record, error) {
	rec, err := d.Read(id)
	if errors.Is(err, errUnreadable) && !d.Alive(id) {
		return nil, errors.Join(driver.ErrNotFound, d.sweepUnfinished(id))
	}
	if err != nil {
		return nil, err
	}
	switch {
	case rec.Info.State == driver.StateRunning && !d.Alive(id):
		// Its keeper may have written the end between the two looks.
		return d.bury(id)
	case rec.Info.State == driver.StateEnded && time.Since(rec.Info.EndedAt) > Keep:
		return nil, errors.Join(driver.ErrNotFound, d.Forget(id))
	}
	return rec, nil
}

// bury ends a sandbox that lost its keeper.
func (d *Dir) bury(id string) (rec *Record, err error) {
	err = d.lock(func() error {
		if rec, err = d.Read(id); err != nil || rec.Info.State != driver.StateRunning {
			return err
		}
		rec.Info.State, rec.Info.End, rec.Info.EndedAt = driver.StateEnded, driver.EndProviderLost, time.Now()
		return d.Bury(rec)
	})
	if rec == nil {
		return nil, err
	}
	return rec, errors.Join(err, d.Release(id, rec.Info.Name))
}

// Bury removes all that a sandbox held, whose processes have ended as far as
// they could be told to, and writes its last record.
func (d *Dir) Bury(rec *Record) error {
	var errs []error
	if rec.Plain {
		errs = append(errs, lineage.Family(rec.Family).End(5*time.Second))
	}
	errs = append(errs, removeCgroups(rec.Cgroups), d.Clear(rec.Info.ID))
	if err := errors.Join(errs...); err != nil {
		return err // the record still says that it runs: the next sweep tries again
	}
	if err := d.Write(rec); err != nil {
		return err
	}
	// Last: without it, a record that says that the sandbox runs is a lost one.
	return os.Remove(d.aliveFile(rec.Info.ID))
}

// sweepUnfinished removes a directory without a record, or with one that cannot
// be read, whose maker is gone.
func (d *Dir) sweepUnfinished(id string) error {
	return d.lock(func() error {
		_, err := d.Read(id)
		if lost := errors.Is(err, driver.ErrNotFound) || errors.Is(err, errUnreadable); !lost || d.Alive(id) {
			return nil
		}
		dirs, _ := os.ReadFile(filepath.Join(d.Box(id), "cgroups"))
		if err := removeCgroups(strings.Fields(string(dirs))); err != nil {
			return err
		}
		return d.Forget(id)
	})
}

// NoteCgroups remembers where the groups of a sandbox will be that has no record
// yet, so that they are removed if it never gets one. It comes before they are
// made.
func (d *Dir) NoteCgroups(id string, dirs []string) error {
	return os.WriteFile(filepath.Join(d.Box(id), "cgroups"), []byte(strings.Join(dirs, "\n")), 0o600)
}

func (d *Dir) sweepSnapshots() error {
	dir := filepath.Join(d.path, "snapshots")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > leftover {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
