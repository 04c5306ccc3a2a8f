package modalemu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// createWait bounds the making of a sandbox.
const createWait = 2 * time.Minute

// order is what a client wants made.
type order struct {
	v1         bool
	appID      string
	definition *pb.Sandbox
	tags       []*pb.SandboxTag
	sources    []*pb.SecretSource
	ephemeral  map[string]string
}

// values are the environment that an order gives.
func (s *Server) values(o *order) (map[string]string, error) {
	if len(o.sources) > 0 && len(o.ephemeral) > 0 {
		return nil, invalid("secret_sources cannot be combined with ephemeral_secrets")
	}
	values, err := s.variables(o.definition.GetSecretIds(), o.sources)
	if err != nil {
		return nil, err
	}
	for _, more := range []map[string]string{o.ephemeral, o.definition.GetEnvironmentVariables().GetContents()} {
		if err := checkVariables(more); err != nil {
			return nil, err
		}
		maps.Copy(values, more)
	}
	return values, nil
}

// create makes a sandbox and starts its command. When it fails nothing is left.
func (s *Server) create(ctx context.Context, o *order) (*sandbox, error) {
	sb, p, err := s.draft(o)
	if err != nil {
		return nil, err
	}
	if err := s.boxes.begin(sb.app.ID, sb.name); err != nil {
		return nil, err
	}
	made := false
	defer func() {
		if !made {
			s.boxes.abandon(sb.app.ID, sb.name)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, createWait)
	defer cancel()
	failed, err := s.furnish(ctx, sb, p, o.definition)
	if err != nil {
		return nil, err
	}
	made = true
	s.boxes.add(sb)
	go s.attend(sb, failed)
	return sb, nil
}

// draft checks an order, and gives the sandbox that it is to be.
func (s *Server) draft(o *order) (*sandbox, *plan, error) {
	app, err := s.app(o.appID)
	if err != nil {
		return nil, nil, err
	}
	name := o.definition.GetName()
	if name != "" {
		if err := checkName("Sandbox", name); err != nil {
			return nil, nil, err
		}
	}
	tags, err := tagMap(o.tags)
	if err != nil {
		return nil, nil, err
	}
	sb := &sandbox{
		id: "sb-" + randomString(sandboxV2IDLength), v1: o.v1, app: app, imageID: o.definition.GetImageId(),
		createdAt: s.boxes.createdNow(), name: name, named: name != "", tags: tags,
		task: &task{id: newID("ta"), sidecars: make(map[string]*container)},
	}
	if o.v1 {
		sb.id = newID("sb")
	}
	sb.task.sandboxID, sb.task.dir = sb.id, filepath.Join(s.spoolDir(), sb.id)
	values, err := s.values(o)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.plan(o.definition, values, s.ownVariables(sb, o.definition))
	return sb, p, err
}

// ownVariables are what Modal sets in every container.
func (s *Server) ownVariables(sb *sandbox, def *pb.Sandbox) map[string]string {
	own := map[string]string{
		"MODAL_SANDBOX_ID": sb.id, "MODAL_TASK_ID": sb.task.id, "MODAL_IMAGE_ID": def.GetImageId(),
		"MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_AWS", "MODAL_REGION": "us-east-1",
	}
	if def.GetIncludeOidcIdentityToken() {
		own["MODAL_IDENTITY_TOKEN"] = s.tokens.issue(forIdentity, sb.id, maxTimeout)
	}
	return own
}

// furnish makes what a sandbox consists of. failed is the result of one whose
// command could not be started.
func (s *Server) furnish(ctx context.Context, sb *sandbox, p *plan, def *pb.Sandbox) (failed *pb.GenericResult, err error) {
	if err := os.MkdirAll(sb.task.dir, 0o700); err != nil {
		return nil, err
	}
	c, failed, err := s.newContainer(ctx, sb.task, "", mainName, p, def)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(sb.task.dir))
	}
	sb.task.main = c
	sb.task.idle = newIdleTimer(p.idle, func() { c.end(endIdle) })
	sb.timer = time.AfterFunc(p.timeout, func() { c.end(endTimeout) })
	if def.GetExperimentalOptionsV2()[exitSnapshotOption] == "true" {
		sb.snapshot = newExitSnapshot()
	}
	if ports := def.GetOpenPorts().GetPorts(); len(ports) > 0 {
		if sb.tunnels, err = s.openTunnels(ctx, sb, ports, def.GetInboundCidrAllowlist()); err != nil {
			s.endNow(c)
			s.letGo(sb)
			return nil, errors.Join(err, os.RemoveAll(sb.task.dir))
		}
	}
	return failed, nil
}

// mainName is the name of a sandbox's own container.
const mainName = "main"

// attend waits for a sandbox's end, and tidies up.
func (s *Server) attend(sb *sandbox, failed *pb.GenericResult) {
	if failed != nil {
		s.beforeEnd(sb)
		s.finish(sb.task.main, failed)
	} else {
		s.watch(sb.task.main, func() { s.beforeEnd(sb) })
	}
	s.letGo(sb)
	s.boxes.gone(sb)
}

// beforeEnd ends the sidecars and tunnels, and takes the image of the files that is
// wanted.
func (s *Server) beforeEnd(sb *sandbox) {
	sb.task.endSidecars()
	if sb.snapshot != nil {
		s.takeExitSnapshot(sb)
	}
	sb.task.running.Wait()
	if sb.tunnels != nil { // who hears of the end finds none of them
		sb.tunnels.close()
	}
}

// letGo gives up what a sandbox holds besides its containers.
func (s *Server) letGo(sb *sandbox) {
	sb.timer.Stop()
	sb.task.idle.stop()
	sb.connect.close()
}

// endNow ends a container that nobody watches.
func (s *Server) endNow(c *container) {
	s.finish(c, endTerminated.result())
}

// newContainer makes a container and starts its command. failed is the result
// of one whose command could not be started.
func (s *Server) newContainer(ctx context.Context, t *task, id, name string, p *plan, def *pb.Sandbox) (_ *container, failed *pb.GenericResult, err error) {
	c := &container{
		id: id, name: name, task: t, definition: def, createdAt: time.Now(),
		stop: make(chan ending, 1), ended: make(chan struct{}),
	}
	made := false
	defer func() {
		if !made {
			s.endNow(c)
		}
	}()
	if failed, err = s.outfit(ctx, c, p); err != nil {
		return nil, nil, err
	}
	made = true
	return c, failed, nil
}

// outfit makes what a container consists of, as far as it comes.
func (s *Server) outfit(ctx context.Context, c *container, p *plan) (failed *pb.GenericResult, err error) {
	for _, m := range p.volumes {
		mount, vol, err := s.volumes.mount(ctx, m.GetVolumeId(), m)
		if err != nil {
			return nil, fmt.Errorf("volume %s at %s: %w", m.GetVolumeId(), m.GetMountPath(), err)
		}
		c.volumes = append(c.volumes, vol)
		mount.Target = path.Clean(m.GetMountPath())
		p.config.Mounts = append(p.config.Mounts, mount)
	}
	for _, m := range p.buckets {
		mount, err := s.mountBucket(ctx, c, m)
		if err != nil {
			return nil, err
		}
		p.config.Mounts = append(p.config.Mounts, mount)
	}
	if p.rules != nil {
		mount, err := s.trustMount(c)
		if err != nil {
			return nil, err
		}
		p.config.Mounts = append(p.config.Mounts, mount)
	}
	p.config.Tags = map[string]string{"modalemu": c.task.sandboxID}
	if c.box, err = s.provider.Create(ctx, &p.config); err != nil {
		return nil, err
	}
	if p.rules != nil {
		if err := s.openPolicy(ctx, c, p); err != nil {
			return nil, fmt.Errorf("outbound policy: %w", err)
		}
	}
	for _, dir := range p.dirs {
		if err := c.box.Files().MkdirAll(ctx, dir, 0o755); err != nil {
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return s.startEntry(ctx, c, p.args)
}

// createSidecar makes a container beside a sandbox's own. Names are unique
// among those that run.
func (s *Server) createSidecar(ctx context.Context, t *task, name string, o *order) (*container, error) {
	if name == mainName {
		return nil, invalid("Container name '%s' is reserved", mainName)
	}
	if err := checkName("Container", name); err != nil {
		return nil, err
	}
	if len(o.definition.GetOpenPorts().GetPorts()) > 0 || o.definition.GetReadinessProbe() != nil {
		return nil, invalid("a sidecar has no ports and no readiness probe of its own")
	}
	values, err := s.values(o)
	if err != nil {
		return nil, err
	}
	sb, err := s.boxes.get(t.sandboxID)
	if err != nil {
		return nil, err
	}
	p, err := s.plan(o.definition, values, s.ownVariables(sb, o.definition))
	if err != nil {
		return nil, err
	}
	p.config.Timeout = maxTimeout + driverGrace // it ends with the sandbox
	done, err := t.reserve(name)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, createWait)
	defer cancel()
	c, failed, err := s.newContainer(ctx, t, newID("co"), name, p, o.definition)
	if err != nil {
		return nil, err
	}
	if err := t.add(c); err != nil {
		s.endNow(c)
		return nil, err
	}
	go s.attendSidecar(c, failed)
	return c, nil
}

func (s *Server) attendSidecar(c *container, failed *pb.GenericResult) {
	defer c.task.running.Done()
	if failed == nil {
		s.watch(c, nil)
		return
	}
	s.finish(c, failed)
}

// tagMap checks tags.
func tagMap(tags []*pb.SandboxTag) (map[string]string, error) {
	m := make(map[string]string, len(tags))
	for _, tag := range tags {
		if tag.GetTagName() == "" || len(tag.GetTagName()) > 64 || len(tag.GetTagValue()) > 256 {
			return nil, invalid("Invalid tag '%s': names have 1 to 64 characters, values up to 256", tag.GetTagName())
		}
		m[tag.GetTagName()] = tag.GetTagValue()
	}
	return m, nil
}

func finished(id string) error {
	return status.Errorf(codes.FailedPrecondition, "Sandbox '%s' has already finished", id)
}
