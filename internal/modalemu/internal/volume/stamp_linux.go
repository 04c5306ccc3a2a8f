package volume

import (
	"io/fs"
	"syscall"
	"time"
)

// seekData and seekHole are lseek's.
const seekData, seekHole = 3, 4

// owned adds to s what only the system's own information has.
func (s *stamp) owned(info fs.FileInfo) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	s.uid, s.gid = int(st.Uid), int(st.Gid)
	if s.kind == regular {
		s.inode, s.links = st.Ino, uint64(st.Nlink) //nolint:unconvert // not uint64 on arm64
		s.mtime, s.ctime = time.Duration(st.Mtim.Nano()), time.Duration(st.Ctim.Nano())
	}
}
