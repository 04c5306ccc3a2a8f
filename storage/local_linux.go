package storage

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// bootID tells one run of this machine's kernel from another.
var bootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
})

func originOf(root *found) string {
	if bootID() == "" {
		return ""
	}
	return fmt.Sprintf("%s %d %d", bootID(), root.dev, root.ino)
}

// statInto fills in what a file system tells, and gives find's letter for the kind.
func statInto(f *found, info fs.FileInfo) byte {
	st := info.Sys().(*syscall.Stat_t)
	f.Size, f.Mode = st.Size, uint16(st.Mode&0o7777)
	f.UID, f.GID = st.Uid, st.Gid
	f.Mtime = tree.Time{Sec: int64(st.Mtim.Sec), Nsec: int32(st.Mtim.Nsec)}
	f.ctime = tree.Time{Sec: int64(st.Ctim.Sec), Nsec: int32(st.Ctim.Nsec)}
	f.ino, f.dev, f.links = st.Ino, uint64(st.Dev), uint64(st.Nlink)
	f.sparse = st.Blocks*512 < st.Size
	return kindOf(uint64(st.Mode))
}
