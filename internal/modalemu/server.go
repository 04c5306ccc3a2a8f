package modalemu

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/authority"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/tunnel"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// maxMessage is what the client sends and takes at the most.
const maxMessage = 100 << 20

// closeWait bounds what Close waits for sandboxes to end.
const closeWait = 60 * time.Second

// Source says what an image's FROM names.
type Source string

// The sources.
const (
	SourcePull Source = "pull" // the image of that name, from its registry
	SourceHost Source = "host" // this machine's programs, whatever the name
)

// Options vary Start. The zero value, and nil, are good defaults.
type Options struct {
	// Listen is where to listen, a loopback "IP:port"; port 0 picks one. Empty
	// means "127.0.0.1:0".
	Listen string
	// State is a directory in which apps, images, secrets and volumes survive;
	// one server uses it at a time. Empty means a directory that Close removes.
	State string
	// Base says what an image's FROM names. Empty means SourcePull.
	Base Source
	// Secrets are there from the start, by name.
	Secrets map[string]map[string]string
	// Proxies are the names of proxies that are there.
	Proxies []string
	// Environments are there besides "main".
	Environments []string
	// TokenLife is how long the tokens of clients are good for. Zero means 20
	// minutes for those of the API and one hour for those of the router.
	TokenLife time.Duration
	// Mounts are shown in every sandbox, as if they were part of its image.
	Mounts []driver.Mount
	// Upstreams are stand-ins for hosts that outbound policies name: by a host's
	// name the "address:port" that requests to it go to instead. A stand-in has to
	// have a certificate for that name. What a sandbox may reach does not matter.
	Upstreams map[string]string
	// UpstreamCAs are certificates, as PEM, of authorities that may vouch for such
	// hosts, beside this machine's.
	UpstreamCAs []byte
	// Provider runs the sandboxes; the caller closes it after Close. Nil means
	// localbox, in State.
	Provider driver.Provider
	// Log is told what clients are not: the causes of internal errors. Nil
	// means no log.
	Log *slog.Logger
}

// Server is a running emulator. Its methods are safe for concurrent use.
type Server struct {
	pb.UnimplementedModalClientServer

	opts     Options
	log      *slog.Logger
	dir      string // everything on disk
	lock     *os.File
	provider driver.Provider
	ownBoxes func() error // closes the provider, when it is the server's own

	lis     net.Listener
	grpc    *grpc.Server
	tokens  *tokens
	faults  *faults
	answers *answers
	store   *store
	boxes   *boxes
	builds  *builds
	queues  *queues
	volumes volumeFiles

	delivered delivered // outputs that need not be kept for long

	authority       *tunnel.Authority
	policyAuthority *authority.Authority // vouches, inside, for hosts of outbound policies
	upstreamRoots   *x509.CertPool       // vouch for them here; nil means this machine's

	ctx     context.Context // ends with Close; what runs in the background
	stop    context.CancelFunc
	running sync.WaitGroup
	served  chan error
	closing sync.Once
	closed  error
}

// Start starts a server; it serves when Start returns. The caller closes it.
func Start(opts *Options) (*Server, error) {
	s, err := start(opts)
	if err != nil {
		return nil, fmt.Errorf("modalemu: %w", err)
	}
	return s, nil
}

func start(opts *Options) (_ *Server, err error) {
	s := &Server{tokens: newTokens(), boxes: newBoxes(), builds: newBuilds(), queues: newQueues(), served: make(chan error, 1)}
	s.faults = newFaults(s.tokens)
	if opts != nil {
		s.opts = *opts
	}
	if err := s.opts.fill(); err != nil {
		return nil, err
	}
	s.log = s.opts.Log
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.answers = newAnswers(s.ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if err := s.openDir(); err != nil {
		return nil, err
	}
	if err := s.openProvider(); err != nil {
		return nil, err
	}
	if err := s.openState(); err != nil {
		return nil, err
	}
	if err := s.openAuthority(); err != nil {
		return nil, err
	}
	if err := s.openUpstreams(); err != nil {
		return nil, err
	}
	if s.lis, err = net.Listen("tcp", s.opts.Listen); err != nil {
		return nil, err
	}
	s.grpc = s.newGRPC()
	go func() { s.served <- s.grpc.Serve(s.faults.listen(s.lis)) }()
	s.running.Go(s.housekeeping)
	return s, nil
}

// fill sets what is not set, and refuses what cannot be.
func (o *Options) fill() error {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if port, ok := strings.CutPrefix(o.Listen, "localhost:"); ok {
		o.Listen = "127.0.0.1:" + port
	}
	at, err := netip.ParseAddrPort(o.Listen)
	if err != nil {
		return fmt.Errorf("listen address %q is not IP:port", o.Listen)
	}
	if !at.Addr().IsLoopback() {
		return fmt.Errorf("listen address %s is not a loopback address: anybody who reached it could run programs here", o.Listen)
	}
	switch o.Base {
	case "":
		o.Base = SourcePull
	case SourcePull, SourceHost:
	default:
		return fmt.Errorf("base %q is neither %q nor %q", o.Base, SourcePull, SourceHost)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// openDir makes the state directory, and takes it for this server alone.
func (s *Server) openDir() error {
	if s.opts.State == "" {
		dir, err := os.MkdirTemp("", "modalemu-")
		if err != nil {
			return err
		}
		s.dir = dir
	} else {
		dir, err := filepath.Abs(s.opts.State)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		s.dir = dir
	}
	lock, err := lockDir(s.dir)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := s.sweepBuckets(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.spoolDir()); err != nil {
		return err
	}
	return os.MkdirAll(s.spoolDir(), 0o700)
}

// spoolDir is for what commands print; nothing in it outlives the server.
func (s *Server) spoolDir() string { return filepath.Join(s.dir, "spool") }

func (s *Server) openProvider() error {
	if s.opts.Provider != nil {
		s.provider = s.opts.Provider
		return nil
	}
	p, err := localbox.Open(&localbox.Options{Dir: filepath.Join(s.dir, "boxes"), Log: s.opts.Log})
	if err != nil {
		return err
	}
	s.provider, s.ownBoxes = p.Driver(), p.Close
	return s.sweep()
}

// newGRPC makes the server of both services.
func (s *Server) newGRPC() *grpc.Server {
	g, a := guard{log: s.log}, auth{tokens: s.tokens}
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(64<<20),
		grpc.InitialConnWindowSize(64<<20),
		grpc.ReadBufferSize(256<<10),
		grpc.WriteBufferSize(256<<10),
		// The client asks every 30 seconds, also when it waits for nothing.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(g.unary, s.faults.unary, a.unary, s.answers.unary),
		grpc.ChainStreamInterceptor(g.stream, s.faults.stream, a.stream),
	)
	pb.RegisterModalClientServer(srv, s)
	pb.RegisterTaskCommandRouterServer(srv, newRouter(s))
	return srv
}

// Addr is where the server listens, as "IP:port".
func (s *Server) Addr() string { return s.lis.Addr().String() }

// URL is the server's, for MODAL_SERVER_URL.
func (s *Server) URL() string { return "http://" + s.Addr() }

// routerURL is the same listener's; the client insists on https, and yet talks
// plainly to a server on loopback. It cannot dial IPv6 addresses here.
func (s *Server) routerURL() string {
	at := s.lis.Addr().(*net.TCPAddr)
	if at.IP.To4() == nil {
		return fmt.Sprintf("https://localhost:%d", at.Port)
	}
	return "https://" + at.String()
}

// Close ends every sandbox, and removes what they hold and, without
// Options.State, everything else.
func (s *Server) Close() error {
	s.closing.Do(func() {
		if err := s.shutdown(); err != nil {
			s.closed = fmt.Errorf("modalemu: %w", err)
		}
	})
	return s.closed
}

func (s *Server) shutdown() error {
	s.boxes.close()
	s.stop()
	s.grpc.Stop()
	s.answers.running.Wait()
	err := <-s.served
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil // it was stopped before it began
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return errors.Join(err, s.boxes.terminateAll(ctx), s.release())
}

// release gives back what start has opened.
func (s *Server) release() error {
	s.stop()
	s.running.Wait()
	var errs []error
	if s.volumes != nil {
		errs = append(errs, s.volumes.close())
	}
	if s.ownBoxes != nil {
		errs = append(errs, s.ownBoxes())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.dir != "" {
		remove := s.dir
		if s.opts.State != "" {
			remove = s.spoolDir()
		}
		errs = append(errs, removeAll(remove))
	}
	return errors.Join(errs...)
}

// removeAll removes dir. An image that was unpacked by an ordinary user may have
// directories in it which that user may not write to.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walked := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) // before it is read
		}
		return err
	})
	return errors.Join(walked, os.RemoveAll(dir))
}
