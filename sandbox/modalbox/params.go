package modalbox

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// params gives a configuration in Modal's terms. Dir is not among them: Modal
// starts nothing in a directory that is not there, so it is made first, and
// commands go there themselves.
func (p *provider) params(ctx context.Context, cfg *driver.Config) (*modal.SandboxCreateParams, error) {
	m := &modal.SandboxCreateParams{
		CPU: cfg.CPU, CPULimit: cfg.CPU, GPU: cfg.GPU, Name: cfg.Name, Cloud: cfg.Cloud, Regions: cfg.Regions,
		Timeout: cmp.Or(seconds(cfg.Timeout), defaultTimeout), IdleTimeout: seconds(cfg.IdleTimeout),
	}
	m.MemoryMiB = int((cfg.Memory + 1<<20 - 1) >> 20)
	m.MemoryLimitMiB = m.MemoryMiB
	if p.opts.EncryptedPorts {
		m.EncryptedPorts = cfg.Ports
	} else {
		m.UnencryptedPorts = cfg.Ports
	}
	setNetwork(m, cfg)
	for _, fill := range []func(context.Context, *driver.Config, *modal.SandboxCreateParams) error{
		p.setSecrets, p.setVolumes, p.setBuckets, p.setHeaderRules, p.setProbe,
	} {
		if err := fill(ctx, cfg, m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// setNetwork maps Config.Network. A blocked network has no tunnels either: with
// ports it is an allowlist of nothing.
func setNetwork(m *modal.SandboxCreateParams, cfg *driver.Config) {
	switch {
	case cfg.Network.Mode == driver.NetworkNone && len(cfg.Ports) == 0:
		m.BlockNetwork = true
	case cfg.Network.Mode != driver.NetworkFull:
		m.OutboundCIDRAllowlist, m.OutboundDomainAllowlist = allowlists(cfg.Network)
	}
}

func allowlists(n driver.Network) (cidrs, domains *modal.Allowlist) {
	cidrs, domains = &modal.Allowlist{Entries: []string{}}, &modal.Allowlist{Entries: []string{}}
	if n.Mode == driver.NetworkFull {
		cidrs.Entries, domains.Entries = []string{"0.0.0.0/0"}, []string{"*"} // Modal's are of IPv4 only
		return cidrs, domains
	}
	for _, c := range n.CIDRs {
		cidrs.Entries = append(cidrs.Entries, c.String())
	}
	domains.Entries = append(domains.Entries, n.Domains...)
	return cidrs, domains
}

func (p *provider) setSecrets(ctx context.Context, cfg *driver.Config, m *modal.SandboxCreateParams) error {
	for _, name := range cfg.SecretNames {
		s, err := p.secret(ctx, name)
		if err != nil {
			return err
		}
		m.Secrets = append(m.Secrets, s)
	}
	env, raw := split(cfg.Env)
	secrets, rawSecrets := split(cfg.Secrets)
	if len(raw)+len(rawSecrets) > 0 {
		secrets[rawVariable] = rawScript(append(raw, rawSecrets...))
	}
	m.Env = env
	if len(secrets) == 0 {
		return nil
	}
	s, err := p.client.Secrets.FromMap(ctx, secrets, &modal.SecretFromMapParams{Environment: p.opts.Environment})
	if err != nil {
		return called(ctx, "make a secret", err)
	}
	m.Secrets = append(m.Secrets, s)
	return nil
}

// split gives KEY=VALUE as a map, and apart from it what is not UTF-8, which
// protocol buffers do not carry.
func split(list []string) (env map[string]string, raw []string) {
	env = make(map[string]string, len(list))
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		if utf8.ValidString(v) {
			env[k] = v
		} else {
			raw = append(raw, kv)
		}
	}
	return env, raw
}

func (p *provider) secret(ctx context.Context, name string) (*modal.Secret, error) {
	s, err := p.client.Secrets.FromName(ctx, name, &modal.SecretFromNameParams{Environment: p.opts.Environment})
	return s, called(ctx, fmt.Sprintf("find secret %q", name), err)
}

// credentials gives a secret of the place by its name, or one of these values;
// nil where there is neither.
func (p *provider) credentials(ctx context.Context, name string, values driver.Secrets) (*modal.Secret, error) {
	if name != "" {
		return p.secret(ctx, name)
	}
	if len(values) == 0 {
		return nil, nil
	}
	env, raw := split(values)
	if len(raw) > 0 {
		return nil, fmt.Errorf("%w: credentials have to be UTF-8", driver.ErrInvalid)
	}
	s, err := p.client.Secrets.FromMap(ctx, env, &modal.SecretFromMapParams{Environment: p.opts.Environment})
	return s, called(ctx, "make a secret", err)
}

func (p *provider) setVolumes(ctx context.Context, cfg *driver.Config, m *modal.SandboxCreateParams) error {
	if len(cfg.Volumes) > 0 {
		m.Volumes = make(map[string]*modal.Volume, len(cfg.Volumes))
	}
	for _, v := range cfg.Volumes {
		volume, err := p.client.Volumes.FromName(ctx, v.Name, &modal.VolumeFromNameParams{Environment: p.opts.Environment, CreateIfMissing: true})
		if err != nil {
			return called(ctx, fmt.Sprintf("find volume %q", v.Name), err)
		}
		m.Volumes[v.Target] = volume.WithMountOptions(&modal.VolumeMountOptionsParams{ReadOnly: &v.ReadOnly, SubPath: &v.SubPath})
	}
	return nil
}

func (p *provider) setBuckets(ctx context.Context, cfg *driver.Config, m *modal.SandboxCreateParams) error {
	if len(cfg.Buckets) > 0 {
		m.CloudBucketMounts = make(map[string]*modal.CloudBucketMount, len(cfg.Buckets))
	}
	for _, b := range cfg.Buckets {
		secret, err := p.credentials(ctx, b.SecretName, b.Credentials)
		if err != nil {
			return err
		}
		mount, err := p.client.CloudBucketMounts.New(b.Bucket, &modal.CloudBucketMountParams{
			Secret: secret, ReadOnly: b.ReadOnly, RequesterPays: b.RequesterPays,
			BucketEndpointURL: optional(b.Endpoint), KeyPrefix: optional(b.Prefix), OidcAuthRoleArn: optional(b.RoleARN),
		})
		if err != nil {
			return fmt.Errorf("%w: Buckets: %s: %w", driver.ErrInvalid, b.Bucket, err)
		}
		m.CloudBucketMounts[b.Target] = mount
		m.IncludeOidcIdentityToken = m.IncludeOidcIdentityToken || b.RoleARN != ""
	}
	return nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (p *provider) setHeaderRules(ctx context.Context, cfg *driver.Config, m *modal.SandboxCreateParams) error {
	if len(cfg.HeaderRules) == 0 {
		return nil
	}
	secrets := map[string]*modal.Secret{}
	policy := modal.NewExperimentalOutboundPolicy()
	for _, r := range cfg.HeaderRules {
		if r.SecretName != "" && secrets[r.SecretName] == nil {
			s, err := p.secret(ctx, r.SecretName)
			if err != nil {
				return err
			}
			secrets[r.SecretName] = s
		}
		policy = policy.WithHeaderReplacement(modal.ExperimentalOutboundPolicyHeaderReplacement{
			Domain: r.Domain, Headers: maps.Clone(r.Headers), Secret: secrets[r.SecretName]})
	}
	m.ExperimentalOutboundPolicy = &policy
	return nil
}

// probeScript runs a probe where commands run. Until that directory is made the
// probe fails.
const probeScript = `cd -P -- "$0" && exec "$@"`

func (p *provider) setProbe(_ context.Context, cfg *driver.Config, m *modal.SandboxCreateParams) (err error) {
	if cfg.Probe == nil {
		return nil
	}
	interval := (cfg.Probe.Interval + time.Millisecond - 1).Truncate(time.Millisecond)
	if cfg.Probe.Port != 0 {
		m.ReadinessProbe, err = modal.NewTCPProbe(cfg.Probe.Port, &modal.TCPProbeParams{Interval: interval})
	} else {
		command := append([]string{shell, "-c", probeScript, cmp.Or(cfg.Dir, defaultDir)}, cfg.Probe.Command...)
		m.ReadinessProbe, err = modal.NewExecProbe(command, &modal.ExecProbeParams{Interval: interval})
	}
	return wrap("set the probe", err)
}
