package sandboxhttp

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
)

// createRequest is the body of POST /sandbox.
type createRequest struct {
	name        string
	image       sandbox.Image
	volume      string
	env, tags   map[string]string
	cpu         float64
	memoryMB    int64
	diskMB      int64
	pids        int64
	timeout     int64 // seconds
	idleTimeout int64 // seconds
	hasNetwork  bool
	network     string
	domains     []string
	cidrs       []string
	hasS3       bool
	s3          S3
}

// maxUserTags leaves room for the tags of this package.
const maxUserTags = 50

// reservedTag begins the tags that this package keeps on a sandbox.
const reservedTag = "vivarium."

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	volumeRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

var networkModes = map[string]sandbox.NetworkMode{
	"": sandbox.NetworkNone, "none": sandbox.NetworkNone, "allowlist": sandbox.NetworkAllowlist, "full": sandbox.NetworkFull,
}

func parseCreate(body []byte) (*createRequest, error) {
	q := new(createRequest)
	err := decodeBody(body, map[string]any{
		"name": &q.name, "tags": &q.tags, "env": &q.env,
		"image_base": &q.image.Base, "dockerfile_commands": &q.image.Commands, "snapshot": &q.image.Snapshot,
		"volume_name": &q.volume,
		"s3": nested{&q.hasS3, map[string]any{
			"bucket": &q.s3.Bucket, "endpoint": &q.s3.Endpoint, "region": &q.s3.Region, "prefix": &q.s3.Prefix,
			"access_key_id": &q.s3.AccessKeyID, "secret_access_key": &q.s3.SecretAccessKey,
		}},
		"cpu": &q.cpu, "memory_mb": &q.memoryMB, "disk_mb": &q.diskMB, "pids": &q.pids,
		"timeout_seconds": &q.timeout, "idle_timeout_seconds": &q.idleTimeout,
		"network": nested{&q.hasNetwork, map[string]any{"mode": &q.network, "domains": &q.domains, "cidrs": &q.cidrs}},
	})
	if err != nil {
		return nil, err
	}
	return q, q.validate()
}

// validate checks what sandbox.Config.Validate, which comes later, does not know
// or would say in other words.
func (q *createRequest) validate() error {
	var bad fieldErrors
	bad.when(q.name != "" && !nameRE.MatchString(q.name), "name",
		"use up to 63 letters, digits, '.', '_' and '-', with a letter or digit first")
	bad.when(len(q.tags) > maxUserTags, "tags", "use %d at most", maxUserTags)
	for _, k := range slices.Sorted(maps.Keys(q.tags)) {
		bad.when(strings.HasPrefix(k, reservedTag), "tags."+clip(k), "tags that begin with %q are the server's own", reservedTag)
	}
	for i, c := range q.image.Commands {
		bad.when(strings.TrimSpace(c) == "", "dockerfile_commands", "the one at %d is empty", i)
	}
	bad.when(q.image.Snapshot != "" && (q.image.Base != "" || len(q.image.Commands) > 0), "snapshot",
		"leave out image_base and dockerfile_commands with it")
	inRange(&bad, "cpu", q.cpu, 1024)
	inRange(&bad, "memory_mb", q.memoryMB, 1<<30)
	inRange(&bad, "disk_mb", q.diskMB, 1<<30)
	inRange(&bad, "pids", q.pids, 1<<22)
	inRange(&bad, "timeout_seconds", q.timeout, 366*24*3600)
	inRange(&bad, "idle_timeout_seconds", q.idleTimeout, 366*24*3600)
	_, known := networkModes[q.network]
	bad.when(!known, "network.mode", "use none, allowlist or full")
	q.validateVolume(&bad)
	return bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are")
}

func inRange[T int64 | float64](bad *fieldErrors, field string, value, most T) {
	bad.when(value < 0 || value > most, field, "use 0 to %v", most)
}

func (q *createRequest) validateVolume(bad *fieldErrors) {
	bad.when(q.volume != "" && !volumeRE.MatchString(q.volume), "volume_name",
		"use up to 64 letters, digits, '.', '_' and '-', with a letter or digit first")
	if !q.hasS3 {
		return
	}
	bad.when(q.volume == "", "volume_name", "is needed with s3")
	bad.when(q.s3.Bucket == "", "s3.bucket", "is needed")
	bad.when((q.s3.AccessKeyID.Reveal() == "") != (q.s3.SecretAccessKey.Reveal() == ""), "s3.secret_access_key",
		"access_key_id and secret_access_key go together")
	if q.s3.Endpoint != "" {
		u, err := url.Parse(q.s3.Endpoint)
		ok := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" &&
			u.User == nil && u.RawQuery == "" && u.Fragment == ""
		bad.when(!ok, "s3.endpoint", `use a URL such as "https://s3.example.com"`)
	}
}

// config puts what the request asks for into a copy of the server's own
// configuration. Environment variables of a request are secrets: they appear in
// no Info.
func (q *createRequest) config(base *sandbox.Config) (*sandbox.Config, error) {
	c := sandbox.Config{}
	if base != nil {
		c = *base
	}
	if q.image.Base != "" || q.image.Snapshot != "" || len(q.image.Commands) > 0 {
		c.Image = q.image
	}
	c.Env, c.Secrets, c.Tags, c.Name = maps.Clone(c.Env), maps.Clone(c.Secrets), maps.Clone(q.tags), ""
	if c.Tags == nil {
		c.Tags = map[string]string{}
	}
	if err := q.addEnv(&c); err != nil {
		return nil, err
	}
	override(&c.CPU, q.cpu)
	override(&c.Memory, q.memoryMB<<20)
	override(&c.Disk, q.diskMB<<20)
	override(&c.Pids, int(q.pids))
	override(&c.Timeout, time.Duration(q.timeout)*time.Second)
	override(&c.IdleTimeout, time.Duration(q.idleTimeout)*time.Second)
	if q.hasNetwork {
		c.Network = sandbox.Network{Mode: networkModes[q.network], Domains: q.domains, CIDRs: q.cidrs}
	}
	if err := c.Validate(); err != nil {
		return nil, invalidProblem(err)
	}
	return &c, nil
}

func (q *createRequest) addEnv(c *sandbox.Config) error {
	var bad fieldErrors
	for _, k := range slices.Sorted(maps.Keys(q.env)) {
		_, plain := c.Env[k]
		_, secret := c.Secrets[k]
		bad.when(plain || secret, "env."+clip(k), "is set by the server")
		if c.Secrets == nil {
			c.Secrets = map[string]sandbox.Secret{}
		}
		if !plain && !secret {
			c.Secrets[k] = sandbox.NewSecret(q.env[k])
		}
	}
	return bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are")
}

// override sets a field to what was asked for, if anything was.
func override[T comparable](field *T, asked T) {
	var zero T
	if asked != zero {
		*field = asked
	}
}

// runRequest is the body of POST /sandbox/{id}/claude.
type runRequest struct {
	body                         string // as it came
	prompt, session, model       string
	systemPrompt, appendPrompt   string
	maxTurns                     int64
	allowedTools, disallowedTool []string
	permissionMode               string
	partial                      bool
}

var (
	sessionRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,127}$`)
	modelRE   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._:/@\[\]-]{0,255}$`)
)

var permissionModes = []claude.PermissionMode{"", claude.PermissionDefault, claude.PermissionAcceptEdits,
	claude.PermissionPlan, claude.PermissionDontAsk, claude.PermissionBypass}

func parseRun(body []byte) (*runRequest, error) {
	q := &runRequest{partial: true, body: string(body)}
	err := decodeBody(body, map[string]any{
		"prompt": &q.prompt, "session_id": &q.session, "model": &q.model,
		"system_prompt": &q.systemPrompt, "append_system_prompt": &q.appendPrompt, "max_turns": &q.maxTurns,
		"allowed_tools": &q.allowedTools, "disallowed_tools": &q.disallowedTool,
		"permission_mode": &q.permissionMode, "partial": &q.partial,
	})
	if err != nil {
		return nil, err
	}
	return q, q.validate()
}

func (q *runRequest) validate() error {
	var bad fieldErrors
	bad.when(strings.TrimSpace(q.prompt) == "", "prompt", "say what Claude is to do")
	bad.when(q.session != "" && !sessionRE.MatchString(q.session), "session_id", "use the session_id of an earlier run")
	// These become arguments of a command: a word that begins with "-" would
	// be taken for an option.
	bad.when(q.model != "" && !modelRE.MatchString(q.model), "model", `use an alias such as "sonnet", or a model's full name`)
	inRange(&bad, "max_turns", q.maxTurns, 1_000_000)
	for field, list := range map[string][]string{"allowed_tools": q.allowedTools, "disallowed_tools": q.disallowedTool} {
		bad.when(len(list) > 100, field, "use 100 at most")
		bad.when(slices.ContainsFunc(list, badTool), field, `use names of tools or rules such as "Bash(git *)"`)
	}
	bad.when(!slices.Contains(permissionModes, claude.PermissionMode(q.permissionMode)), "permission_mode",
		"use default, acceptEdits, plan, dontAsk or bypassPermissions")
	return bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are")
}

func badTool(rule string) bool {
	return rule == "" || len(rule) > 1024 || strings.HasPrefix(rule, "-") ||
		strings.ContainsFunc(rule, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// options puts what the request asks for into a copy of the server's own options.
func (q *runRequest) options(base *claude.Options) *claude.Options {
	o := claude.Options{}
	if base != nil {
		o = *base
	}
	o.Partial, o.Resume, o.Fork = q.partial, q.session, false
	override(&o.Model, q.model)
	override(&o.SystemPrompt, q.systemPrompt)
	override(&o.AppendSystemPrompt, q.appendPrompt)
	override(&o.PermissionMode, claude.PermissionMode(q.permissionMode))
	if n := int(q.maxTurns); n > 0 && (o.MaxTurns == 0 || n < o.MaxTurns) {
		o.MaxTurns = n
	}
	if q.allowedTools != nil {
		o.AllowedTools = q.allowedTools
	}
	// What the server takes away stays away.
	o.DisallowedTools = slices.Concat(o.DisallowedTools, q.disallowedTool)
	return &o
}
