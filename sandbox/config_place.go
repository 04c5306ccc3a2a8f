package sandbox

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func (i Image) lower(bad *problems) driver.Image {
	d := driver.Image{Base: i.Base, Commands: slices.Clone(i.Commands), Snapshot: i.Snapshot}
	bad.when(i.Snapshot != "" && (i.Base != "" || len(i.Commands) > 0 || i.Registry != nil),
		"Image.Snapshot: leave Base, Commands and Registry empty with it")
	for _, c := range i.Commands {
		bad.when(strings.TrimSpace(c) == "" || strings.ContainsRune(c, 0), "Image.Commands: %q: use a Dockerfile command, such as \"RUN true\"", c)
	}
	if r := i.Registry; r != nil {
		bad.when(i.Base == "" && i.Snapshot == "", "Image.Registry: set Base with it")
		bad.when((r.SecretName == "") == (len(r.Credentials) == 0), "Image.Registry: set either Credentials or SecretName")
		d.Registry = &driver.Registry{Kind: r.Kind, SecretName: r.SecretName,
			Credentials: lowerEnv(bad, "Image.Registry.Credentials", r.Credentials, Secret.Reveal)}
		keys, ok := registryKeys[r.Kind]
		bad.when(!ok, "Image.Registry.Kind %d: use RegistryPassword, RegistryECR or RegistryGCP", r.Kind)
		for _, k := range keys {
			_, have := r.Credentials[k]
			bad.when(len(r.Credentials) > 0 && !have, "Image.Registry.Credentials: %s is missing", k)
		}
	}
	return d
}

// registryKeys are the keys that a registry's credentials must have.
var registryKeys = map[RegistryKind][]string{
	RegistryPassword: {"REGISTRY_USERNAME", "REGISTRY_PASSWORD"},
	RegistryECR:      {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"},
	RegistryGCP:      {"SERVICE_ACCOUNT_JSON"},
}

// lowerPlaces checks what only some drivers have a place for.
func (c *Config) lowerPlaces(bad *problems, d *driver.Config) {
	targets := map[string]bool{}
	for _, m := range c.Mounts {
		targets[m.Target] = true
	}
	target := func(field, t string) {
		bad.when(!isCleanAbs(t) || t == "/", "%s: target %q: use a clean absolute path below /", field, t)
		bad.when(targets[t], "%s: target %q is there twice", field, t)
		targets[t] = true
	}
	for _, name := range c.SecretNames {
		bad.when(name == "" || !isPlain(name), "SecretNames: %q is not a name", name)
	}
	for _, v := range c.Volumes {
		bad.when(v.Name == "" || !isPlain(v.Name), "Volumes: %q is not a name", v.Name)
		target("Volumes", v.Target)
		d.Volumes = append(d.Volumes, v)
	}
	for _, b := range c.Buckets {
		target("Buckets", b.Target)
		b.check(bad)
		d.Buckets = append(d.Buckets, driver.BucketMount{
			Bucket: b.Bucket, Target: b.Target, Prefix: b.Prefix, Endpoint: b.Endpoint, SecretName: b.SecretName,
			Credentials: lowerEnv(bad, "Buckets.Credentials", b.Credentials, Secret.Reveal), RoleARN: b.RoleARN,
			ReadOnly: b.ReadOnly, RequesterPays: b.RequesterPays, PathStyle: b.PathStyle,
		})
	}
	for _, r := range c.HeaderRules {
		lower := strings.ToLower(r.Domain)
		bad.when(lower != "*" && !isDomain(lower), `HeaderRules: domain %q: use "example.com", "*.example.com" or "*"`, r.Domain)
		bad.when(len(r.Headers) == 0, "HeaderRules: %q has no header", r.Domain)
		d.HeaderRules = append(d.HeaderRules, HeaderRule{Domain: lower, Headers: maps.Clone(r.Headers), SecretName: r.SecretName})
	}
	if p := c.Probe; p != nil {
		bad.when((p.Port == 0) == (len(p.Command) == 0), "Probe: set either Port or Command")
		bad.when(p.Port < 0 || p.Port > 65535, "Probe.Port %d: use 1 to 65535", p.Port)
		bad.when(p.Interval < 0, "Probe.Interval %v: use 0 or more", p.Interval)
		d.Probe = &Probe{Port: p.Port, Command: slices.Clone(p.Command), Interval: p.Interval}
	}
}

func (b *BucketMount) check(bad *problems) {
	bad.when(b.Bucket == "" || !isPlain(b.Bucket), "Buckets: %q is not a name", b.Bucket)
	bad.when(b.Prefix != "" && !strings.HasSuffix(b.Prefix, "/"), "Buckets: prefix %q: end it with /", b.Prefix)
	ways := 0
	for _, set := range []bool{len(b.Credentials) > 0, b.SecretName != "", b.RoleARN != ""} {
		if set {
			ways++
		}
	}
	bad.when(ways > 1, "Buckets: %s: set one of Credentials, SecretName and RoleARN", b.Bucket)
	bad.when(b.RequesterPays && ways == 0, "Buckets: %s: RequesterPays needs credentials", b.Bucket)
	if b.Endpoint != "" {
		u, err := url.Parse(b.Endpoint)
		bad.when(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https", "Buckets: endpoint %q: use an http or https URL", b.Endpoint)
	}
}
