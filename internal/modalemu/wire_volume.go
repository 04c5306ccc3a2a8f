package modalemu

import (
	"context"
	"errors"
	"path/filepath"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/volume"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// volumeStore keeps the files of volumes below the state directory.
type volumeStore struct{ store *volume.Store }

func newVolumeFiles(s *Server) (volumeFiles, error) {
	store, err := volume.Open(filepath.Join(s.dir, "files"), &volume.Options{Log: s.log})
	if err != nil {
		return nil, err
	}
	v := &volumeStore{store}
	if err := v.sweep(s.store); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

// sweep removes the files of volumes that nobody knows: nameless ones end with
// the server that made them.
func (v *volumeStore) sweep(st *store) error {
	ids, err := v.store.IDs()
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	st.read(func(r *records) {
		for id := range r.Volumes {
			known[id] = true
		}
	})
	for _, id := range ids {
		if !known[id] {
			if err := v.store.Delete(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *volumeStore) mount(ctx context.Context, id string, m *pb.VolumeMount) (driver.Mount, volumeMount, error) {
	mount, err := v.store.Mount(ctx, id, &volume.MountOptions{ReadOnly: m.GetReadOnly(), SubPath: m.GetSubPath()})
	if err != nil {
		return driver.Mount{}, nil, err
	}
	return driver.Mount{Source: mount.Dir(), Target: m.GetMountPath(), Writable: !mount.ReadOnly(), Owned: true}, mount, nil
}

func (v *volumeStore) remove(id string) error { return v.store.Delete(id) }

func (v *volumeStore) close() error { return v.store.Close() }
