package state

import (
	"time"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/cgroup"
)

func removeCgroups(dirs []string) error { return cgroup.Remove(dirs, 5*time.Second) }
