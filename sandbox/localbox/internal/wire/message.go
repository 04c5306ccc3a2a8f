//go:build unix

package wire

import (
	"io/fs"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Op is what a Request asks for.
type Op uint8

// The operations of a helper. Beside each: what travels as descriptors.
const (
	OpHello     Op = iota + 1 // reply: the read end of the pipe that closes when the sandbox is gone
	OpStart                   // request: the child's ends of the streams asked for; reply: the terminal
	OpSignal                  // to the process group of Proc
	OpKill                    // everything that came from Proc
	OpOpen                    // reply: the file
	OpStat                    //
	OpLstat                   //
	OpReadDir                 // several replies, all but the last with More
	OpReadLink                //
	OpMkdir                   //
	OpMkdirAll                //
	OpRename                  //
	OpRemove                  //
	OpRemoveAll               //
	OpSymlink                 //
	OpChmod                   //
	OpChtimes                 //
	OpListen                  // reply: the listening socket
	OpDial                    // reply: the connected socket
	OpSave                    // request: where the archive is written
	OpLoad                    // request: where the archive is read; only for the keeper
	OpSetEnv                  // commands get Env, unless the sandbox's own or theirs says otherwise; only for the keeper
	OpWatch                   // watch Path; request: an inotify descriptor to add to; without one it is the reply's
	OpSaveLayer               // request: where the archive of what was changed in an image is written
	OpSaveBelow               // request: where the archive of the directory Path is written
	OpOOMKills                // reply: Proc is how many processes were killed for memory
)

// What Num holds with OpWatch. The reply's Infos are what is watched: Base is the
// path, Bytes the watch.
const (
	WatchBelow = 1 << iota // all directories below too
	WatchList              // Infos has the files in them too, with 0 in Bytes
)

// Request is what a host asks a helper. Which fields count depends on Op.
type Request struct {
	ID            uint64
	Op            Op
	Proc          uint64 // chosen by the client with OpStart
	Path, Path2   string
	Num           int64 // signal, open flags, Version with OpHello
	Mode          fs.FileMode
	Atime, Mtime  int64 // nanoseconds since 1970
	Args, Env     []string
	Dir           string
	Stdin         bool
	Stdout        bool
	Stderr        bool
	Merge         bool
	TTY           bool
	Rows, Columns uint16
}

// Walk implements Message.
func (r *Request) Walk(c *Codec) {
	c.Uint(&r.ID)
	Int(c, &r.Op)
	c.Uint(&r.Proc)
	c.String(&r.Path)
	c.String(&r.Path2)
	Int(c, &r.Num)
	Int(c, &r.Mode)
	Int(c, &r.Atime)
	Int(c, &r.Mtime)
	c.Strings(&r.Args)
	c.Strings(&r.Env)
	c.String(&r.Dir)
	for _, b := range []*bool{&r.Stdin, &r.Stdout, &r.Stderr, &r.Merge, &r.TTY} {
		c.Bool(b)
	}
	Int(c, &r.Rows)
	Int(c, &r.Columns)
}

// Reply answers a Request, or with ID 0 tells that a command exited.
type Reply struct {
	ID    uint64
	Err   *Error
	More  bool
	Proc  uint64
	Text  string
	Infos []FileInfo
	Exit  Exit
}

// Walk implements Message.
func (r *Reply) Walk(c *Codec) {
	c.Uint(&r.ID)
	failed := r.Err != nil
	c.Bool(&failed)
	if failed {
		if r.Err == nil {
			r.Err = &Error{}
		}
		r.Err.Walk(c)
	}
	c.Bool(&r.More)
	c.Uint(&r.Proc)
	c.String(&r.Text)
	List(c, &r.Infos, func(i *FileInfo) { i.Walk(c) })
	r.Exit.Walk(c)
}

// Exit is driver.Exit on the wire.
type Exit struct{ driver.Exit }

// Walk implements Message.
func (e *Exit) Walk(c *Codec) {
	Int(c, &e.Code)
	Int(c, &e.Signal)
	c.Bool(&e.OOM)
	Int(c, &e.UserTime)
	Int(c, &e.SysTime)
	Int(c, &e.MaxMemory)
}

// FileInfo describes a file. It is an fs.FileInfo.
type FileInfo struct {
	Base  string
	Bytes int64
	Perm  fs.FileMode
	MTime int64 // nanoseconds since 1970
	UID   int   // as the inside sees it
	GID   int
}

// NewFileInfo copies info under the name base.
func NewFileInfo(base string, info fs.FileInfo) FileInfo {
	i := FileInfo{Base: base, Bytes: info.Size(), Perm: info.Mode(), MTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		i.UID, i.GID = int(st.Uid), int(st.Gid)
	}
	return i
}

// Walk implements Message.
func (i *FileInfo) Walk(c *Codec) {
	c.String(&i.Base)
	Int(c, &i.Bytes)
	Int(c, &i.Perm)
	Int(c, &i.MTime)
	Int(c, &i.UID)
	Int(c, &i.GID)
}

// Owner is whose the file is, by the numbers of the inside.
func (i *FileInfo) Owner() (uid, gid int) { return i.UID, i.GID }

// Name is the last element of the file's name.
func (i *FileInfo) Name() string { return i.Base }

// Size is the file's length in bytes.
func (i *FileInfo) Size() int64 { return i.Bytes }

// Mode is the file's type and permissions.
func (i *FileInfo) Mode() fs.FileMode { return i.Perm }

// ModTime is when the file was changed last.
func (i *FileInfo) ModTime() time.Time { return time.Unix(0, i.MTime) }

// IsDir reports whether it is a directory.
func (i *FileInfo) IsDir() bool { return i.Perm.IsDir() }

// Sys is nil.
func (i *FileInfo) Sys() any { return nil }
