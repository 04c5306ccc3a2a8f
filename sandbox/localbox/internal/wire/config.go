//go:build unix

package wire

import (
	"net/netip"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// KeeperOp is what a host asks its keeper.
type KeeperOp uint8

// The operations of a keeper.
const (
	KeeperProbe  KeeperOp = iota + 1 // try whether isolation works
	KeeperCreate                     // reply: ID
	KeeperCancel                     // the KeeperCreate of the same number is not wanted any more

	// Of one sandbox, at its desk, one for each connection.
	KeeperSetNetwork // to Config.Network
	KeeperMount      // of the sandbox asked: show Root in the directory Path; without Root an empty one
	KeeperUnmount    // undo that
)

// KeeperRequest is what a host asks its keeper.
type KeeperRequest struct {
	ID     uint64
	Op     KeeperOp
	Dir    string // the state directory
	Plain  bool   // without isolation
	Config driver.Config
	Root   *Root // the image's files; nil: this machine's programs, read-only
	Path   string
}

// Walk implements Message.
func (r *KeeperRequest) Walk(c *Codec) {
	c.Uint(&r.ID)
	Int(c, &r.Op)
	c.String(&r.Dir)
	c.Bool(&r.Plain)
	walkConfig(c, &r.Config)
	optional(c, &r.Root)
	c.String(&r.Path)
}

// optional walks a message that may be missing.
func optional[T any, P interface {
	*T
	Message
}](c *Codec, v *P) {
	there := *v != nil
	c.Bool(&there)
	if !there {
		return
	}
	if *v == nil {
		*v = new(T)
	}
	(*v).Walk(c)
}

// Root is what a sandbox's file system is made of when it has an image.
type Root struct {
	ID         string
	Host       bool     // on top of this machine's programs
	Layers     []string // directories, lowest first
	Record     string   // a file; a shared lock on it keeps the layers
	Env        []string // KEY=VALUE
	Dir        string   // where commands start; empty: not said
	User       string   // who they run as; empty: root
	Entrypoint []string // for images made from it
	Command    []string // the same
}

// Walk implements Message.
func (r *Root) Walk(c *Codec) {
	c.String(&r.ID)
	c.Bool(&r.Host)
	c.Strings(&r.Layers)
	c.String(&r.Record)
	c.Strings(&r.Env)
	c.String(&r.Dir)
	c.String(&r.User)
	c.Strings(&r.Entrypoint)
	c.Strings(&r.Command)
}

func walkConfig(c *Codec, cfg *driver.Config) {
	c.String(&cfg.Name)
	c.String(&cfg.Image.Base)
	c.Strings(&cfg.Image.Commands)
	c.String(&cfg.Image.Snapshot)
	c.Strings(&cfg.Env)
	c.Strings((*[]string)(&cfg.Secrets))
	c.String(&cfg.Dir)
	// In millionths of a core: finer than any scheduler.
	cpu := int64(cfg.CPU * 1e6)
	Int(c, &cpu)
	cfg.CPU = float64(cpu) / 1e6
	Int(c, &cfg.Memory)
	Int(c, &cfg.Pids)
	Int(c, &cfg.Disk)
	Int(c, &cfg.Timeout)
	Int(c, &cfg.IdleTimeout)
	Int(c, &cfg.Network.Mode)
	c.Strings(&cfg.Network.Domains)
	List(c, &cfg.Network.CIDRs, func(p *netip.Prefix) { walkPrefix(c, p) })
	List(c, &cfg.Ports, func(p *int) { Int(c, p) })
	List(c, &cfg.Mounts, func(m *driver.Mount) {
		c.String(&m.Source)
		c.String(&m.Target)
		c.Bool(&m.Writable)
		c.Bool(&m.Owned)
	})
	c.StringMap(&cfg.Tags)
	walkProbe(c, &cfg.Probe)
}

func walkProbe(c *Codec, p **driver.Probe) {
	there := *p != nil
	c.Bool(&there)
	if !there {
		return
	}
	if *p == nil {
		*p = new(driver.Probe)
	}
	Int(c, &(*p).Port)
	c.Strings(&(*p).Command)
	Int(c, &(*p).Interval)
}

func walkPrefix(c *Codec, p *netip.Prefix) {
	var s string
	if p.IsValid() {
		s = p.String()
	}
	c.String(&s)
	if !c.reading || c.err != nil || s == "" {
		return
	}
	parsed, err := netip.ParsePrefix(s)
	if err != nil {
		c.fail(err)
	}
	*p = parsed
}

// KeeperReply answers a KeeperRequest.
type KeeperReply struct {
	ID      uint64
	Err     *Error
	Sandbox string // the id of what was created
}

// Walk implements Message.
func (r *KeeperReply) Walk(c *Codec) {
	c.Uint(&r.ID)
	failed := r.Err != nil
	c.Bool(&failed)
	if failed {
		if r.Err == nil {
			r.Err = &Error{}
		}
		r.Err.Walk(c)
	}
	c.String(&r.Sandbox)
}

// Setup is what the keeper tells a new process that makes its namespaces into a
// sandbox. Beside it travel descriptors of the mounts' sources, where Mounts
// says so, and of all that Root names, where Root says so.
type Setup struct {
	Probe    bool // say whether it works, and exit
	Hostname string
	Disk     int64 // bytes
	Pids     int   // 0: no limit on processes
	DataMax  int64 // bytes of data segment of each process; 0: no limit
	CPUs     []int // the processors to run on; empty: all
	Dir      string
	Mounts   []SetupMount
	Nonce    uint64 // lets the helper through the filter's rule on tags
	Root     *SetupRoot
}

// SetupRoot is a root file system of layers. A process that made one says so
// with a Status, beside which the directories travel that Uppers names.
type SetupRoot struct {
	Host     bool
	Layers   []string // lowest first
	Programs []string // with Host, this machine's directories that are shown
	Passed   bool     // descriptors of Layers and Programs travel with the message
	Skeleton bool     // the lowest of Layers is what Host has below them
	Built    bool     // there are other Layers
}

// Walk implements Message.
func (r *SetupRoot) Walk(c *Codec) {
	c.Bool(&r.Host)
	c.Strings(&r.Layers)
	c.Strings(&r.Programs)
	c.Bool(&r.Passed)
	c.Bool(&r.Skeleton)
	c.Bool(&r.Built)
}

// SetupMount is one of Config.Mounts.
type SetupMount struct {
	Source, Target string
	Passed         bool // a descriptor of the source travels with the message
	Writable       bool
	Owned          bool
}

// Walk implements Message.
func (s *Setup) Walk(c *Codec) {
	c.Bool(&s.Probe)
	c.String(&s.Hostname)
	Int(c, &s.Disk)
	Int(c, &s.Pids)
	Int(c, &s.DataMax)
	List(c, &s.CPUs, func(n *int) { Int(c, n) })
	c.String(&s.Dir)
	List(c, &s.Mounts, func(m *SetupMount) {
		c.String(&m.Source)
		c.String(&m.Target)
		c.Bool(&m.Passed)
		c.Bool(&m.Writable)
		c.Bool(&m.Owned)
	})
	c.Uint(&s.Nonce)
	optional(c, &s.Root)
}

// Boot is what the keeper tells a helper when it starts. Beside it travel, in
// this order: the listening socket, the read end of the done pipe, the lock
// that says that the sandbox lives, with OOM the file that counts kills, and the
// directories that Uppers names.
type Boot struct {
	Plain       bool
	Root        string // with Plain the directory that holds the sandbox's files, otherwise "/"
	Env         []string
	Dir         string // where commands start
	IdleTimeout int64  // nanoseconds
	Nonce       uint64
	Family      uint64 // what the tags of this sandbox's commands start with
	OOM         bool
	Image       bool     // its root is made of layers, and its user is root inside
	User        string   // with Image, who commands run as; empty: root
	MadeDir     bool     // with Image, nobody asked for Dir: it is that user's
	Uppers      []string // with Image, the directories behind what can be written, by where they are seen
	Entering    bool     // with Image, a child changes the root, and ends when it has
}

// Walk implements Message.
func (b *Boot) Walk(c *Codec) {
	c.Bool(&b.Plain)
	c.String(&b.Root)
	c.Strings(&b.Env)
	c.String(&b.Dir)
	Int(c, &b.IdleTimeout)
	c.Uint(&b.Nonce)
	c.Uint(&b.Family)
	c.Bool(&b.OOM)
	c.Bool(&b.Image)
	c.String(&b.User)
	c.Bool(&b.MadeDir)
	c.Strings(&b.Uppers)
	c.Bool(&b.Entering)
}

// Status is what a starting process tells the keeper: a failed step, or that it
// is ready.
type Status struct {
	Err  *Error
	Step string
	// What Boot is to say of it; the descriptors travel beside it.
	Uppers   []string
	Entering bool
}

// Walk implements Message.
func (s *Status) Walk(c *Codec) {
	failed := s.Err != nil
	c.Bool(&failed)
	if failed {
		if s.Err == nil {
			s.Err = &Error{}
		}
		s.Err.Walk(c)
	}
	c.String(&s.Step)
	c.Strings(&s.Uppers)
	c.Bool(&s.Entering)
}
