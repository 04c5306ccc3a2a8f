package modalemu

import (
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/outbound"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	defaultTimeout = 300 * time.Second
	maxTimeout     = 24 * time.Hour
	// driverGrace is what the driver waits longer than this server before it
	// ends a sandbox: for the case that this server is gone.
	driverGrace = 2 * time.Minute
	// defaultDisk is less than Modal's 512 GiB, since it is in memory here, but
	// more than the largest file that Modal's client reads, 5 GiB.
	defaultDisk = 16 << 30
)

// plan is what a container's definition asks for, checked.
type plan struct {
	image         *imageRecord
	config        driver.Config
	args          []string
	timeout, idle time.Duration
	volumes       []*pb.VolumeMount
	buckets       []*pb.CloudBucketMount
	rules         []outbound.Rule // nil without an outbound policy
	bundle        string          // where the client says that certificates are
	dirs          []string        // to be made before anything runs
}

// invalid is a refusal of arguments.
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// refused is a refusal of what Modal has and this server does not.
func refused(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format+" (the emulator cannot do this)", args...)
}

// plan checks a definition. values are the environment that secrets and the
// client give, own that of the server, which nothing overrides.
func (s *Server) plan(def *pb.Sandbox, values, own map[string]string) (*plan, error) {
	if def == nil {
		return nil, invalid("a sandbox needs a definition")
	}
	p := &plan{args: def.GetEntrypointArgs(), volumes: def.GetVolumeMounts(), buckets: def.GetCloudBucketMounts()}
	for _, step := range []func(*plan, *pb.Sandbox) error{
		s.planImage, planPlace, planTimes, planResources, s.planMounts, s.planNetwork, planExtras,
	} {
		if err := step(p, def); err != nil {
			return nil, err
		}
	}
	if p.rules != nil {
		p.bundle = values["SSL_CERT_FILE"]
		maps.Copy(own, policyEnv())
	}
	for key := range own {
		delete(values, key)
	}
	for key := range values {
		if strings.HasPrefix(key, "MODAL_") && reserved[key] {
			delete(values, key)
		}
	}
	p.config.Secrets, p.config.Env = environ(values), environ(own)
	p.config.Mounts = slices.Clone(s.opts.Mounts)
	return p, nil
}

// reserved are the variables that Modal sets, or does not, whatever a client asks for.
var reserved = map[string]bool{
	"MODAL_CLOUD_PROVIDER": true, "MODAL_IMAGE_ID": true, "MODAL_REGION": true,
	"MODAL_TASK_ID": true, "MODAL_SANDBOX_ID": true, "MODAL_IDENTITY_TOKEN": true,
}

func (s *Server) planImage(p *plan, def *pb.Sandbox) error {
	p.image = s.store.image(def.GetImageId())
	switch {
	case p.image == nil:
		return status.Errorf(codes.NotFound, "Image '%s' not found", def.GetImageId())
	case p.image.Mountable:
		return invalid("Image '%s' is of a directory: mount it in a running sandbox instead", p.image.ID)
	}
	p.config.Image = p.image.driverImage()
	if len(p.args) > 0 {
		p.args = slices.Concat(p.image.Entrypoint, p.args)
	}
	// Where an image says nothing sandboxes start in the root.
	for _, dir := range []string{def.GetWorkdir(), p.image.Dir, "/"} {
		if dir != "" {
			p.config.Dir = path.Clean(dir)
			break
		}
	}
	if !path.IsAbs(p.config.Dir) {
		return invalid("workdir must be an absolute path, got: %q", def.GetWorkdir())
	}
	if dir := def.GetWorkdir(); dir != "" {
		p.dirs = append(p.dirs, path.Clean(dir))
	}
	return nil
}

// regionName is the form of the regions that Modal has.
var regionName = regexp.MustCompile(`^(us|eu|ap|uk|ca|me|sa|af|jp|au|il|mx|in|asia|europe|australia|northamerica|southamerica|africa)(-[a-z]+[0-9]*)?(-[0-9a-z]+)?$`)

func planPlace(_ *plan, def *pb.Sandbox) error {
	clouds := []string{"", "auto", "aws", "gcp", "oci", "azure", "crusoe"}
	if cloud := strings.ToLower(def.GetCloudProviderStr()); !slices.Contains(clouds, cloud) {
		return invalid("Invalid cloud provider: %s", def.GetCloudProviderStr())
	}
	for _, region := range def.GetSchedulerPlacement().GetRegions() {
		if !regionName.MatchString(region) {
			return invalid("Invalid region: %s", region)
		}
	}
	return nil
}

func planTimes(p *plan, def *pb.Sandbox) error {
	p.timeout = time.Duration(def.GetTimeoutSecs()) * time.Second
	if p.timeout == 0 {
		p.timeout = defaultTimeout
	}
	if p.timeout > maxTimeout {
		return invalid("Sandbox timeout must be between 1 second and 24 hours, got %d seconds", def.GetTimeoutSecs())
	}
	p.idle = time.Duration(def.GetIdleTimeoutSecs()) * time.Second
	p.config.Timeout = p.timeout + driverGrace
	return nil
}

func planResources(p *plan, def *pb.Sandbox) error {
	r := def.GetResources()
	if limit := r.GetMilliCpuMax(); limit > 0 {
		if limit < r.GetMilliCpu() {
			return invalid("the CPU limit is below the CPU request")
		}
		p.config.CPU = float64(limit) / 1000
	}
	if limit := r.GetMemoryMbMax(); limit > 0 {
		if limit < r.GetMemoryMb() {
			return invalid("the memory limit is below the memory request")
		}
		p.config.Memory = int64(limit) << 20
	}
	p.config.Disk = defaultDisk
	if mib := r.GetEphemeralDiskMb(); mib > 0 {
		p.config.Disk = int64(mib) << 20
	}
	return nil
}

func (s *Server) planMounts(p *plan, def *pb.Sandbox) error {
	seen := make(map[string]bool)
	for _, m := range def.GetVolumeMounts() {
		if err := checkMountPath(m.GetMountPath(), seen); err != nil {
			return err
		}
		if err := s.hasVolume(m.GetVolumeId()); err != nil {
			return err
		}
	}
	for _, m := range def.GetCloudBucketMounts() {
		if err := checkMountPath(m.GetMountPath(), seen); err != nil {
			return err
		}
		if _, err := s.bucketConfig(m); err != nil {
			return err
		}
	}
	return nil
}

func checkMountPath(target string, seen map[string]bool) error {
	clean := path.Clean(target)
	switch {
	case !path.IsAbs(target):
		return invalid("mount path must be absolute, got: %q", target)
	case clean == "/":
		return invalid("cannot mount at the root of the file system")
	case seen[clean]:
		return invalid("two mounts have the path %s", clean)
	}
	seen[clean] = true
	return nil
}

func (s *Server) planNetwork(p *plan, def *pb.Sandbox) (err error) {
	if p.config.Network, err = network(def.GetNetworkAccess(), def.GetBlockNetwork()); err != nil {
		return err
	}
	if id := def.GetProxyId(); id != "" {
		found := false
		s.store.read(func(r *records) {
			for _, proxy := range r.Proxies {
				found = found || proxy.ID == id
			}
		})
		if !found {
			return status.Errorf(codes.NotFound, "Proxy '%s' not found", id)
		}
	}
	seen := make(map[uint32]bool)
	for _, port := range def.GetOpenPorts().GetPorts() {
		n := port.GetPort()
		if n == 0 || n > 65535 || seen[n] {
			return invalid("port %d is not one in [1, 65535], or given twice", n)
		}
		seen[n] = true
	}
	for _, cidr := range def.GetInboundCidrAllowlist() {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			return invalid("Invalid CIDR (inbound): %s", cidr)
		}
	}
	if def.GetI6PnEnabled() {
		return refused("i6pn is not available")
	}
	if def.GetCustomDomain() != "" {
		return refused("the custom domain %s is not set up", def.GetCustomDomain())
	}
	return s.planPolicy(p, def)
}

// network is what a sandbox may reach.
func network(access *pb.NetworkAccess, block bool) (driver.Network, error) {
	switch {
	case block, access.GetNetworkAccessType() == pb.NetworkAccess_BLOCKED:
		return driver.Network{Mode: driver.NetworkNone}, nil
	case access.GetNetworkAccessType() != pb.NetworkAccess_ALLOWLIST:
		return driver.Network{Mode: driver.NetworkFull}, nil
	}
	n := driver.Network{Mode: driver.NetworkAllowlist}
	for _, text := range access.GetAllowedCidrs() {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || !prefix.Addr().Is4() {
			return n, invalid("Invalid CIDR (outbound IPv4): %s", text)
		}
		if prefix.Bits() == 0 {
			n.Mode = driver.NetworkFull
		}
		n.CIDRs = append(n.CIDRs, prefix.Masked())
	}
	for _, name := range access.GetAllowedDomains() {
		name = strings.ToLower(name)
		if name == "*" {
			n.Mode = driver.NetworkFull
			continue
		}
		if !domainName.MatchString(name) {
			return n, invalid("Invalid domain (outbound): %s", name)
		}
		n.Domains = append(n.Domains, name)
	}
	if n.Mode == driver.NetworkFull {
		n.Domains, n.CIDRs = nil, nil
	}
	return n, nil
}

var domainName = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// planPolicy checks the header rules, with which the client refuses the same
// networks.
func (s *Server) planPolicy(p *plan, def *pb.Sandbox) (err error) {
	if def.GetOutboundPolicy() != nil {
		return refused("route-based outbound policies are not available")
	}
	if def.GetExperimentalOutboundPolicy() == nil {
		return nil
	}
	switch {
	case p.config.Network.Mode == driver.NetworkNone:
		return invalid("ExperimentalOutboundPolicy cannot be used when the network is blocked")
	case len(p.config.Network.Domains) > 0:
		return invalid("ExperimentalOutboundPolicy cannot be used with an allowlist of domains")
	}
	p.rules, err = s.rules(def.GetExperimentalOutboundPolicy())
	return err
}

var runtimes = []string{"", "gvisor", "vm"}

func planExtras(p *plan, def *pb.Sandbox) error {
	if !slices.Contains(runtimes, def.GetRuntime()) {
		return invalid("Invalid runtime: %s", def.GetRuntime())
	}
	if def.GetIncludeX509Svid() {
		return refused("X.509 SVIDs are not available")
	}
	if len(def.GetNfsMounts()) > 0 || len(def.GetS3Mounts()) > 0 {
		return refused("network file systems are not available")
	}
	if probe := def.GetReadinessProbe(); probe != nil {
		port, command := probe.GetTcpPort(), probe.GetExecCommand().GetArgv()
		if port > 65535 || port == 0 && len(command) == 0 {
			return invalid("a readiness probe needs a port in [1, 65535] or a command")
		}
	}
	if def.GetExperimentalOptionsV2()["enable_docker"] == "true" {
		p.dirs = append(p.dirs, "/var/lib/docker")
	}
	return nil
}

// exitSnapshotOption is the experimental option that asks for an image of a
// sandbox's files at its end.
const exitSnapshotOption = "enable_exit_snapshot"
