package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Config is what a sandbox is made of. The zero value, and nil, give the
// driver's default image and limits, and no network.
//
// A setting that the driver cannot honour makes Create fail with an error that
// matches errors.ErrUnsupported and names the setting; none is ever ignored.
type Config struct {
	// Name, if set, is unique among the running sandboxes of the provider:
	// letters, digits, '.', '_' and '-', 63 at most. Provider.AttachName finds it.
	Name string
	// Image is what the file system starts from.
	Image Image
	// Env is added to the environment of every command.
	Env map[string]string
	// Secrets are environment variables too, but appear in no Info, log or
	// error. What runs in the sandbox can read them: to use a key without
	// showing it, serve it from outside (package claude/broker).
	Secrets map[string]Secret
	// SecretNames are secrets that the driver's place keeps under these names,
	// such as Modal's; their keys are environment variables like Secrets.
	SecretNames []string
	// Dir is where commands start: an absolute path inside. Empty means the
	// driver's workspace, as a rule "/workspace"; Sandbox.Dir tells.
	Dir string
	// CPU is how many cores may be used, such as 0.5. 0 means the driver's default.
	CPU float64
	// Memory is the limit in bytes for all processes together. 0 means the
	// driver's default.
	Memory int64
	// Pids is how many processes and threads may exist at once. 0 means the
	// driver's default.
	Pids int
	// Disk is how many bytes the sandbox's own files may take. 0 means the
	// driver's default.
	Disk int64
	// Timeout is how long the sandbox lives, whatever runs in it. 0 means the
	// driver's default; negative is invalid.
	Timeout time.Duration
	// IdleTimeout ends the sandbox when nothing has run in it for so long. 0
	// means never before Timeout.
	IdleTimeout time.Duration
	// Network is what can be reached from inside. The zero value is nothing.
	Network Network
	// Ports inside that are made reachable; Info.Ports says where.
	Ports []int
	// Mounts shows files and directories of this machine inside.
	Mounts []Mount
	// Tags are for finding sandboxes again with List.
	Tags map[string]string
	// GPU is what accelerator to give, such as "A100" or "T4:2". Empty means none.
	GPU string
	// Cloud and Regions say where to run, in the words of the driver's place.
	// Empty means anywhere.
	Cloud   string
	Regions []string
	// Volumes are named directories that the driver's place keeps.
	Volumes []Volume
	// Buckets are shown as directories.
	Buckets []BucketMount
	// HeaderRules set headers of outbound HTTPS requests outside the sandbox.
	HeaderRules []HeaderRule
	// Probe says how to see that the sandbox is ready; Sandbox.WaitReady waits
	// for it. nil means that it is ready when Create returns.
	Probe *Probe
}

// Image is what a sandbox's file system starts from. The zero value is the
// driver's default.
type Image struct {
	// Base names an image, such as "debian:12"; what is understood depends on
	// the driver. Empty means its default.
	Base string
	// Commands are Dockerfile commands, such as "RUN apt-get install -y jq",
	// run on top of Base.
	Commands []string
	// Registry is how to log in where Base is. nil means not at all.
	Registry *Registry
	// Snapshot is an id that Sandbox.Snapshot or Provider.BuildImage returned. It
	// excludes Base and Commands.
	Snapshot string
}

// Mount shows a file or directory of this machine inside, for reading only
// unless Writable.
type Mount = driver.Mount

// Volume is a named directory that the driver's place keeps.
type Volume = driver.Volume

// HeaderRule sets headers of outbound HTTPS requests outside the sandbox.
type HeaderRule = driver.HeaderRule

// Probe says how to see that a sandbox is ready.
type Probe = driver.Probe

// RegistryKind is what is needed to log in at a registry.
type RegistryKind = driver.RegistryKind

// The kinds of registries. The zero value is RegistryPassword.
const (
	RegistryPassword = driver.RegistryPassword // REGISTRY_USERNAME and REGISTRY_PASSWORD
	RegistryECR      = driver.RegistryECR      // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION
	RegistryGCP      = driver.RegistryGCP      // SERVICE_ACCOUNT_JSON
)

// Registry is how to log in at an image registry: with Credentials, whose keys
// are those of the Kind, or with the secret that the driver's place keeps as SecretName.
type Registry struct {
	Kind        RegistryKind
	Credentials map[string]Secret
	SecretName  string
}

// BucketMount shows a bucket of an object store as a directory.
type BucketMount struct {
	Bucket string
	// Target is an absolute path inside.
	Target string
	// Prefix, if set, shows only the keys below it; it ends in "/".
	Prefix string
	// Endpoint is the URL of an S3-compatible store. Empty means AWS.
	Endpoint string
	// Credentials, SecretName or RoleARN say who asks; none of them is for a
	// public bucket. The keys of Credentials are AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY.
	Credentials map[string]Secret
	SecretName  string
	RoleARN     string
	ReadOnly    bool
	// RequesterPays accepts to pay for the requests; it needs credentials.
	RequesterPays bool
	// PathStyle puts the bucket's name into the path of the URL.
	PathStyle bool
}

// NetworkMode is how much network a sandbox has.
type NetworkMode = driver.NetworkMode

// The network modes. The zero value is NetworkNone.
const (
	NetworkNone      = driver.NetworkNone      // loopback only
	NetworkAllowlist = driver.NetworkAllowlist // Domains and CIDRs only
	NetworkFull      = driver.NetworkFull      // every public address, never this machine's own network
)

// Network is what a sandbox may reach.
type Network struct {
	Mode NetworkMode
	// Domains that NetworkAllowlist allows: "example.com", or
	// "*.example.com" for every name below it.
	Domains []string
	// CIDRs that NetworkAllowlist allows, such as "192.0.2.0/24".
	CIDRs []string
}

const maxTags = 64

// Validate reports everything that is wrong with the configuration, whatever
// the driver. The error matches ErrInvalid and names the fields. Create calls it.
func (c *Config) Validate() error {
	_, err := c.lower()
	return err
}

// WithoutSecrets gives a copy that can be kept or shown, without Secrets and the
// Credentials of a registry and of buckets, and reports whether there were any. It shares the
// rest with c. Of nil it is the zero Config.
func (c *Config) WithoutSecrets() (bare Config, had bool) {
	if c == nil {
		return bare, false
	}
	bare = *c
	had, bare.Secrets = len(c.Secrets) > 0, nil
	if r := c.Image.Registry; r != nil {
		registry := *r
		had, registry.Credentials = had || len(r.Credentials) > 0, nil
		bare.Image.Registry = &registry
	}
	bare.Buckets = slices.Clone(c.Buckets)
	for i := range bare.Buckets {
		had, bare.Buckets[i].Credentials = had || len(bare.Buckets[i].Credentials) > 0, nil
	}
	return bare, had
}

// lower checks the configuration and gives the driver's form of it.
func (c *Config) lower() (*driver.Config, error) {
	if c == nil {
		c = &Config{}
	}
	var bad problems
	d := &driver.Config{
		Name: c.Name, Dir: c.Dir, CPU: c.CPU, Memory: c.Memory, Pids: c.Pids, Disk: c.Disk,
		Timeout: c.Timeout, IdleTimeout: c.IdleTimeout,
		Image: c.Image.lower(&bad),
		Ports: slices.Clone(c.Ports),
		Tags:  maps.Clone(c.Tags),
		GPU:   c.GPU, Cloud: c.Cloud, Regions: slices.Clone(c.Regions),
		SecretNames: slices.Clone(c.SecretNames),
	}
	bad.when(c.Name != "" && !isName(c.Name),
		"Name %q: use up to 63 letters, digits, '.', '_', '-', starting with a letter or digit", c.Name)
	bad.when(c.Dir != "" && !isCleanAbs(c.Dir), "Dir %q: use a clean absolute path", c.Dir)
	bad.when(c.CPU < 0 || math.IsNaN(c.CPU) || math.IsInf(c.CPU, 1), "CPU %v: use 0 or more", c.CPU)
	bad.when(c.Memory < 0, "Memory %d: use 0 or more bytes", c.Memory)
	bad.when(c.Pids < 0, "Pids %d: use 0 or more", c.Pids)
	bad.when(c.Disk < 0, "Disk %d: use 0 or more bytes", c.Disk)
	bad.when(c.Timeout < 0, "Timeout %v: use 0 or more", c.Timeout)
	bad.when(c.IdleTimeout < 0, "IdleTimeout %v: use 0 or more", c.IdleTimeout)
	d.Env = lowerEnv(&bad, "Env", c.Env, func(v string) string { return v })
	d.Secrets = lowerEnv(&bad, "Secrets", c.Secrets, Secret.Reveal)
	for k := range c.Secrets {
		_, both := c.Env[k]
		bad.when(both, "Secrets %q: is in Env as well", k)
	}
	d.Network = c.Network.lower(&bad)
	c.lowerMounts(&bad, d)
	c.lowerPlaces(&bad, d)
	for i, p := range c.Ports {
		bad.when(p < 1 || p > 65535, "Ports: %d: use 1 to 65535", p)
		bad.when(slices.Contains(c.Ports[:i], p), "Ports: %d is there twice", p)
	}
	bad.when(len(c.Tags) > maxTags, "Tags: %d of them, %d are allowed", len(c.Tags), maxTags)
	for k, v := range c.Tags {
		bad.when(k == "" || len(k) > 63 || len(v) > 255 || !isPlain(k) || !isPlain(v),
			"Tags %q: use a key of 1 to 63 bytes and a value of up to 255, in UTF-8 without control characters", k)
	}
	return d, bad.err()
}

func (c *Config) lowerMounts(bad *problems, d *driver.Config) {
	seen := map[string]bool{}
	for _, m := range c.Mounts {
		bad.when(!filepath.IsAbs(m.Source) || strings.ContainsRune(m.Source, 0), "Mounts: source %q: use an absolute path", m.Source)
		bad.when(!isCleanAbs(m.Target) || m.Target == "/", "Mounts: target %q: use a clean absolute path below /", m.Target)
		bad.when(seen[m.Target], "Mounts: target %q is there twice", m.Target)
		seen[m.Target] = true
		d.Mounts = append(d.Mounts, m)
	}
}

func (n Network) lower(bad *problems) driver.Network {
	d := driver.Network{Mode: n.Mode}
	listed := len(n.Domains)+len(n.CIDRs) > 0
	switch n.Mode {
	case NetworkNone, NetworkFull:
		bad.when(listed, "Network: Domains and CIDRs need Mode NetworkAllowlist")
	case NetworkAllowlist:
		bad.when(!listed, "Network: NetworkAllowlist needs Domains or CIDRs; for no network use NetworkNone")
	default:
		bad.when(true, "Network.Mode %d: use NetworkNone, NetworkAllowlist or NetworkFull", n.Mode)
	}
	for _, name := range n.Domains {
		lower := strings.ToLower(strings.TrimSuffix(name, "."))
		_, isAddr := netip.ParseAddr(lower)
		bad.when(isAddr == nil, "Network.Domains: %q is an address; put it in CIDRs", name)
		bad.when(!isDomain(lower),
			`Network.Domains: %q: use "example.com" or "*.example.com"`, name)
		d.Domains = append(d.Domains, lower)
	}
	for _, cidr := range n.CIDRs {
		p, err := netip.ParsePrefix(cidr)
		bad.when(err != nil || p.Addr().Is4In6(), `Network.CIDRs: %q: use a form such as "192.0.2.0/24"`, cidr)
		d.CIDRs = append(d.CIDRs, p.Masked())
	}
	return d
}

func lowerEnv[V any](bad *problems, field string, env map[string]V, reveal func(V) string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		v := reveal(env[k])
		bad.when(!isVariable(k), "%s: name %q: use letters, digits and '_'", field, k)
		bad.when(strings.ContainsRune(v, 0), "%s: the value of %q holds a NUL byte", field, k)
		list = append(list, k+"="+v)
	}
	return list
}

func isCleanAbs(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

func isPlain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// problems collects what is wrong, so that one error can name all of it.
type problems []error

func (p *problems) when(cond bool, format string, args ...any) {
	if cond {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(p...))
}
