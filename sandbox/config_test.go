package sandbox_test

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// lowered is what a driver is given for a configuration.
func lowered(t *testing.T, c *sandbox.Config) (*driver.Config, error) {
	t.Helper()
	var got *driver.Config
	p := sandbox.NewProvider(&fakeProvider{create: func(cfg *driver.Config) (driver.Sandbox, error) {
		got = cfg
		return &fakeSandbox{}, nil
	}})
	_, err := p.Create(t.Context(), c)
	return got, err
}

func TestConfigReachesTheDriver(t *testing.T) {
	got, err := lowered(t, &sandbox.Config{
		Name: "a.b_c-1", Dir: "/tmp", CPU: 0.5, Memory: 1, Pids: 2, Disk: 3, Timeout: time.Hour, IdleTimeout: time.Minute,
		Image:   sandbox.Image{Base: "debian:12", Commands: []string{"RUN true"}},
		Env:     map[string]string{"B": "2", "A": "1=1"},
		Secrets: map[string]sandbox.Secret{"Z": sandbox.NewSecret("s")},
		Network: sandbox.Network{Mode: sandbox.NetworkAllowlist, Domains: []string{"Example.COM.", "*.example.org"}, CIDRs: []string{"192.0.2.7/24"}},
		Ports:   []int{80, 8080},
		Mounts:  []sandbox.Mount{{Source: "/a", Target: "/b"}},
		Tags:    map[string]string{"k": "v"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &driver.Config{
		Name: "a.b_c-1", Dir: "/tmp", CPU: 0.5, Memory: 1, Pids: 2, Disk: 3, Timeout: time.Hour, IdleTimeout: time.Minute,
		Image:   driver.Image{Base: "debian:12", Commands: []string{"RUN true"}},
		Env:     []string{"A=1=1", "B=2"},
		Secrets: driver.Secrets{"Z=s"},
		Network: driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"example.com", "*.example.org"}, CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		Ports:   []int{80, 8080},
		Mounts:  []driver.Mount{{Source: "/a", Target: "/b"}},
		Tags:    map[string]string{"k": "v"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

func TestNilConfigIsTheZeroOne(t *testing.T) {
	got, err := lowered(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&driver.Config{}, got); diff != "" {
		t.Error(diff)
	}
	if err := (*sandbox.Config)(nil).Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	many := map[string]string{}
	for i := range 65 {
		many[strings.Repeat("k", i+1)[:min(i+1, 63)]+string(rune('a'+i%26))] = ""
	}
	allow := func(n sandbox.Network) sandbox.Config {
		n.Mode = sandbox.NetworkAllowlist
		return sandbox.Config{Network: n}
	}
	for field, configs := range map[string][]sandbox.Config{
		"Name":        {{Name: "-a"}, {Name: "a b"}, {Name: "a/b"}, {Name: ".."}, {Name: strings.Repeat("a", 64)}, {Name: "ä"}, {Name: "a\n"}},
		"Dir":         {{Dir: "rel"}, {Dir: "/a/../b"}, {Dir: "/a/"}, {Dir: "/a\x00"}},
		"CPU":         {{CPU: -1}, {CPU: math.NaN()}, {CPU: math.Inf(1)}},
		"Memory":      {{Memory: -1}},
		"Pids":        {{Pids: -1}},
		"Disk":        {{Disk: -1}},
		"Timeout":     {{Timeout: -1}},
		"IdleTimeout": {{IdleTimeout: -1}},
		"Image.Snapshot": {
			{Image: sandbox.Image{Snapshot: "s", Base: "b"}}, {Image: sandbox.Image{Snapshot: "s", Commands: []string{"RUN x"}}},
		},
		"Env":     {{Env: map[string]string{"": ""}}, {Env: map[string]string{"A=B": ""}}, {Env: map[string]string{"1A": ""}}, {Env: map[string]string{"A": "topsecret\x00"}}},
		"Secrets": {{Secrets: secrets("A-B", "topsecret")}, {Secrets: secrets("A", "topsecret\x00")}, {Secrets: secrets("A", "topsecret"), Env: map[string]string{"A": "x"}}},
		"Network": {
			{Network: sandbox.Network{Domains: []string{"a.example"}}}, {Network: sandbox.Network{Mode: sandbox.NetworkFull, CIDRs: []string{"192.0.2.0/24"}}},
			allow(sandbox.Network{}), {Network: sandbox.Network{Mode: 9}}, {Network: sandbox.Network{Mode: -1}},
		},
		"Network.Domains": {
			allow(sandbox.Network{Domains: []string{""}}), allow(sandbox.Network{Domains: []string{"192.0.2.1"}}), allow(sandbox.Network{Domains: []string{"::1"}}),
			allow(sandbox.Network{Domains: []string{"a..b"}}), allow(sandbox.Network{Domains: []string{"a.*.b"}}), allow(sandbox.Network{Domains: []string{"*"}}),
			allow(sandbox.Network{Domains: []string{"https://a.example"}}), allow(sandbox.Network{Domains: []string{"a.example:443"}}),
			allow(sandbox.Network{Domains: []string{strings.Repeat("a", 64) + ".example"}}), allow(sandbox.Network{Domains: []string{strings.Repeat("a.", 130) + "example"}}),
		},
		"Network.CIDRs": {
			allow(sandbox.Network{CIDRs: []string{"192.0.2.1"}}), allow(sandbox.Network{CIDRs: []string{"192.0.2.0/33"}}),
			allow(sandbox.Network{CIDRs: []string{"::ffff:192.0.2.0/120"}}), allow(sandbox.Network{CIDRs: []string{""}}),
		},
		"Ports": {{Ports: []int{0}}, {Ports: []int{65536}}, {Ports: []int{80, 80}}},
		"Mounts": {
			{Mounts: []sandbox.Mount{{Source: "a", Target: "/b"}}}, {Mounts: []sandbox.Mount{{Source: "/a", Target: "/"}}},
			{Mounts: []sandbox.Mount{{Source: "/a", Target: "/b/../c"}}}, {Mounts: []sandbox.Mount{{Source: "/a", Target: "/b"}, {Source: "/c", Target: "/b"}}},
			{Mounts: []sandbox.Mount{{Source: "/a\x00", Target: "/b"}}},
		},
		"Tags": {
			{Tags: map[string]string{"": "v"}}, {Tags: map[string]string{"k": "a\nb"}}, {Tags: map[string]string{"k": "\xff"}},
			{Tags: map[string]string{strings.Repeat("k", 64): ""}}, {Tags: map[string]string{"k": strings.Repeat("v", 256)}}, {Tags: many},
		},
	} {
		for _, c := range configs {
			err := c.Validate()
			if !errors.Is(err, sandbox.ErrInvalid) || !strings.Contains(err.Error(), field) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("%s: got %v, want one that matches ErrInvalid, names the field, and shows no value", field, err)
			}
			if got, err := lowered(t, &c); err == nil || got != nil {
				t.Errorf("%s: the driver was given %v", field, got)
			}
		}
	}
}

func secrets(name, value string) map[string]sandbox.Secret {
	return map[string]sandbox.Secret{name: sandbox.NewSecret(value)}
}

func TestConfigReportsEverything(t *testing.T) {
	err := (&sandbox.Config{Name: "a b", CPU: -1, Ports: []int{0}}).Validate()
	for _, field := range []string{"Name", "CPU", "Ports"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v: does not name %s", err, field)
		}
	}
}

func TestConfigIsCopied(t *testing.T) {
	c := &sandbox.Config{Ports: []int{80}, Image: sandbox.Image{Commands: []string{"RUN a"}}, Tags: map[string]string{"k": "v"}}
	got, err := lowered(t, c)
	if err != nil {
		t.Fatal(err)
	}
	c.Ports[0], c.Image.Commands[0], c.Tags["k"] = 81, "RUN b", "w"
	if got.Ports[0] != 80 || got.Image.Commands[0] != "RUN a" || got.Tags["k"] != "v" {
		t.Errorf("the driver's configuration changed with the caller's: %+v", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("name", "/dir", "KEY", "value", "example.com", "192.0.2.0/24", "/target", 80, 0.5)
	f.Add("", "", "A", "", "*.A.b.", "2001:db8::/32", "/a b", 1, 0.0)
	f.Add("..", "/../x", "a=b", "\x00", "127.1", "::ffff:0:0/96", "/", -1, math.Inf(-1))
	f.Fuzz(func(t *testing.T, name, dir, key, value, domain, cidr, target string, port int, cpu float64) {
		got, err := lowered(t, &sandbox.Config{
			Name: name, Dir: dir, CPU: cpu, Env: map[string]string{key: value}, Secrets: secrets(key+"_", value),
			Network: sandbox.Network{Mode: sandbox.NetworkAllowlist, Domains: []string{domain}, CIDRs: []string{cidr}},
			Ports:   []int{port}, Mounts: []sandbox.Mount{{Source: "/", Target: target}}, Tags: map[string]string{key: value},
		})
		if err != nil {
			if !errors.Is(err, sandbox.ErrInvalid) {
				t.Fatalf("got %v, want one that matches ErrInvalid", err)
			}
			return
		}
		checkLowered(t, got)
	})
}

// checkLowered holds for every configuration that a driver is given.
func checkLowered(t *testing.T, c *driver.Config) {
	for _, kv := range slices.Concat(c.Env, c.Secrets) {
		k, _, ok := strings.Cut(kv, "=")
		if !ok || k == "" || strings.ContainsAny(k, " \x00/.") || strings.ContainsRune(kv, 0) {
			t.Errorf("environment entry %q", kv)
		}
	}
	for _, p := range []string{c.Mounts[0].Target, "/" + strings.TrimPrefix(c.Dir, "/")} {
		if !strings.HasPrefix(p, "/") || strings.Contains(p+"/", "/../") || strings.ContainsRune(p, 0) {
			t.Errorf("path %q", p)
		}
	}
	d := c.Network.Domains[0]
	if d != strings.ToLower(d) || strings.ContainsAny(d, "/: \x00") || strings.Contains(d[1:], "*") || d == "*" {
		t.Errorf("domain %q", d)
	}
	if p := c.Network.CIDRs[0]; !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		t.Errorf("CIDR %v", p)
	}
	if c.Name != "" && (strings.ContainsAny(c.Name, "/\x00 ") || c.Name[0] == '.' || len(c.Name) > 63) {
		t.Errorf("name %q", c.Name)
	}
	if c.Ports[0] < 1 || c.Ports[0] > 65535 || !(c.CPU >= 0) || math.IsInf(c.CPU, 0) {
		t.Errorf("port %d, CPU %v", c.Ports[0], c.CPU)
	}
}

func TestWithoutSecrets(t *testing.T) {
	secret := map[string]sandbox.Secret{"KEY": sandbox.NewSecret("value")}
	for name, c := range map[string]*sandbox.Config{
		"nil": nil, "none": {CPU: 1},
		"secrets":  {CPU: 1, Secrets: secret},
		"registry": {CPU: 1, Image: sandbox.Image{Registry: &sandbox.Registry{Credentials: secret}}},
		"bucket":   {CPU: 1, Buckets: []sandbox.BucketMount{{Bucket: "b", Credentials: secret}}},
	} {
		bare, had := c.WithoutSecrets()
		if want := name != "nil" && name != "none"; had != want {
			t.Errorf("%s: had secrets: %v", name, had)
		}
		if _, still := bare.WithoutSecrets(); still || c != nil && bare.CPU != 1 {
			t.Errorf("%s: what is left is %+v", name, bare)
		}
		if _, has := c.WithoutSecrets(); has != had {
			t.Errorf("%s: the configuration itself was changed", name)
		}
	}
}
