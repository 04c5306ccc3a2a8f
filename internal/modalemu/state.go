package modalemu

import (
	"path/filepath"
	"time"
)

// housekeepingEvery is how often what has expired is given up.
const housekeepingEvery = 30 * time.Second

// openState reads what a server before this one has left, and adds what Options say.
func (s *Server) openState() (err error) {
	path := ""
	if s.opts.State != "" {
		path = filepath.Join(s.dir, "state.json")
	}
	if s.store, err = openStore(path); err != nil {
		return err
	}
	if s.volumes, err = newVolumeFiles(s); err != nil {
		return err
	}
	return s.store.change(func(r *records) error {
		r.environment(mainEnvironment)
		for _, name := range s.opts.Environments {
			if err := checkName("Environment", name); err != nil {
				return err
			}
			r.environment(name)
		}
		for _, name := range names(s.opts.Secrets) {
			if err := checkVariables(s.opts.Secrets[name]); err != nil {
				return err
			}
			secret := r.addSecret(name, "", s.opts.Secrets[name])
			secret.Seeded = true
		}
		for _, name := range s.opts.Proxies {
			if r.Proxies[name] == nil {
				r.Proxies[name] = &proxyRecord{ID: newID("pr"), Name: name, Created: time.Now()}
			}
		}
		return nil
	})
}

// housekeeping gives up what has expired, until the server is closed.
func (s *Server) housekeeping() {
	t := time.NewTicker(housekeepingEvery)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-t.C:
			s.boxes.trim(now)
			s.builds.trim(now)
			s.queues.trim(now)
			s.delivered.trim(now)
			if err := s.expireImages(s.ctx, now); err != nil {
				s.log.Error("an expired image was not removed", "error", err)
			}
			if err := s.expireVolumes(now); err != nil {
				s.log.Error("an expired volume was not removed", "error", err)
			}
		}
	}
}
