package sqlstore_test

import (
	"sync"
	"testing"
)

func TestID(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		first, second := d.open(t), d.open(t)
		var all sync.WaitGroup
		ids := make([]string, 16)
		for i := range ids {
			all.Go(func() {
				s := first
				if i%2 == 1 {
					s = second
				}
				id, err := s.ID(t.Context())
				if err != nil {
					t.Error(err)
				}
				ids[i] = id
			})
		}
		all.Wait()
		for _, id := range ids {
			if id == "" || id != ids[0] {
				t.Errorf("the database is called %q and %q", ids[0], id)
			}
		}
	})
}
