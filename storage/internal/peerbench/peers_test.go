package peerbench

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// job is what a peer's command lines are made of.
type job struct {
	host     string // of the server, with its port
	bucket   string
	prefix   string // in the bucket; no slash at its end
	home     string // the peer's own: settings, caches
	dir, out string // the tree, and where to restore it
	id       string // what the last sync printed, by tool.id
}

// tool says how a peer is told to do what it is measured at. Its settings are the
// fastest that its own manual offers for this, checks of what arrives left on.
type tool struct {
	name    string
	get     string // how to get it
	prepare func(job) []string
	sync    func(job) []string
	restore func(job) []string
	id      func(stdout []byte) (string, error)
}

const storagePeers = "run make storage-peers"

var tools = []tool{
	{
		name: "kopia", get: storagePeers,
		prepare: func(j job) []string {
			return j.kopia("repository", "create", "s3", "--disable-tls", "--endpoint="+j.host, "--bucket="+j.bucket, "--prefix="+j.prefix+"/",
				"--cache-directory="+j.home+"/cache")
		},
		sync:    func(j job) []string { return j.kopia("snapshot", "create", "--json", "--no-auto-maintenance", j.dir) },
		restore: func(j job) []string { return j.kopia("snapshot", "restore", j.id, j.out) },
		id:      kopiaID,
	},
	{
		name: "restic", get: storagePeers,
		prepare: func(j job) []string { return j.restic("init") },
		sync:    func(j job) []string { return j.restic("backup", "--no-scan", ".") },
		restore: func(j job) []string { return j.restic("restore", "latest", "--target", j.out) },
	},
	{
		name: "rclone", get: storagePeers,
		sync:    func(j job) []string { return j.rclone("sync", j.dir, "bench:"+j.bucket+"/"+j.prefix) },
		restore: func(j job) []string { return j.rclone("copy", "bench:"+j.bucket+"/"+j.prefix, j.out) },
	},
	{
		name: "mc", get: storagePeers,
		sync: func(j job) []string {
			return []string{"--config-dir", j.home, "--quiet", "mirror", "--overwrite", "--remove", j.dir, "bench/" + j.bucket + "/" + j.prefix}
		},
		restore: func(j job) []string {
			return []string{"--config-dir", j.home, "--quiet", "mirror", "bench/" + j.bucket + "/" + j.prefix, j.out}
		},
	},
	{
		name: "s5cmd", get: storagePeers,
		sync: func(j job) []string {
			return []string{"--log", "error", "--endpoint-url", "http://" + j.host, "sync", "--delete", j.dir + "/", "s3://" + j.bucket + "/" + j.prefix + "/"}
		},
		restore: func(j job) []string {
			return []string{"--log", "error", "--endpoint-url", "http://" + j.host, "cp", "s3://" + j.bucket + "/" + j.prefix + "/*", j.out + "/"}
		},
	},
	{
		name: "aws", get: "install it (Debian: apt-get install awscli)",
		sync: func(j job) []string {
			return []string{"--endpoint-url", "http://" + j.host, "s3", "sync", "--only-show-errors", "--delete", j.dir, "s3://" + j.bucket + "/" + j.prefix}
		},
		restore: func(j job) []string {
			return []string{"--endpoint-url", "http://" + j.host, "s3", "sync", "--only-show-errors", "s3://" + j.bucket + "/" + j.prefix, j.out}
		},
	},
}

func (j job) kopia(args ...string) []string {
	return append([]string{"--config-file=" + j.home + "/kopia.config", "--log-dir=" + j.home, "--no-progress"}, args...)
}

func (j job) restic(args ...string) []string {
	return append([]string{"--quiet", "--repo", "s3:http://" + j.host + "/" + j.bucket + "/" + j.prefix, "--cache-dir", j.home + "/cache"}, args...)
}

// rclone trusts the times the server gives objects, as its manual advises where a
// HEAD for every object is too slow; nor does it ask for what it just uploaded, of
// which the server checked the MD5.
func (j job) rclone(args ...string) []string {
	return append([]string{"--transfers=32", "--checkers=32", "--fast-list", "--update", "--use-server-modtime", "--s3-no-check-bucket", "--s3-no-head",
		"--s3-upload-concurrency=4", "--s3-chunk-size=16M", "--buffer-size=0"}, args...)
}

func kopiaID(stdout []byte) (string, error) {
	var snapshot struct{ ID string }
	if err := json.Unmarshal(stdout, &snapshot); err != nil || snapshot.ID == "" {
		return "", fmt.Errorf("no id in %.200q", stdout)
	}
	return snapshot.ID, nil
}

// process is a peer that was found.
type process struct {
	tool
	g    *ground
	path string
	made int
	jobs map[string]job // by tree
}

// find looks for a peer on PATH and in .tools/bin under the root of the repository.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(filepath.Join("..", "..", "..", ".tools", "bin", name))
	if err != nil {
		return "", err
	}
	return filepath.Abs(path) // as it runs in another directory
}

// version says which version a binary is, where it tells.
func version(path string) string {
	if info, err := buildinfo.ReadFile(path); err == nil && info.Main.Version != "" {
		return info.Main.Version
	}
	return path
}

func (p *process) fresh(ctx context.Context, t *tree) error {
	if old, ok := p.jobs[t.name]; ok {
		if err := p.g.empty(ctx, old.prefix+"/"); err != nil {
			return err
		}
		_ = os.RemoveAll(old.home) // the ground is removed whole in the end
	}
	p.made++
	j := job{
		host: strings.TrimPrefix(p.g.server.Endpoint, "http://"), bucket: p.g.server.Bucket, dir: t.dir,
		prefix: fmt.Sprintf("%s/%s-%d", p.name, t.name, p.made),
	}
	j.home = filepath.Join(p.g.dir, "homes", j.prefix)
	if err := os.MkdirAll(j.home, 0o755); err != nil {
		return err
	}
	aws := "[default]\ns3 =\n  max_concurrent_requests = 32\n"
	if err := os.WriteFile(filepath.Join(j.home, "aws"), []byte(aws), 0o600); err != nil {
		return err
	}
	p.jobs[t.name] = j
	if p.prepare == nil {
		return nil
	}
	_, err := p.do(ctx, j, p.prepare(j))
	return err
}

func (p *process) sync(ctx context.Context, t *tree) error {
	j := p.jobs[t.name]
	out, err := p.do(ctx, j, p.tool.sync(j))
	if err != nil || p.id == nil {
		return err
	}
	j.id, err = p.id(out)
	p.jobs[t.name] = j
	return err
}

func (p *process) restore(ctx context.Context, t *tree, out string) error {
	j := p.jobs[t.name]
	j.out = out
	_, err := p.do(ctx, j, p.tool.restore(j))
	return err
}

func (p *process) do(ctx context.Context, j job, args []string) ([]byte, error) {
	s := p.g.server
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Dir = j.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + j.home, "TMPDIR=" + j.home, "LC_ALL=C.UTF-8",
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey, "AWS_REGION=" + s.Region, "AWS_DEFAULT_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + j.home + "/aws",
		"RESTIC_PASSWORD=bench", "KOPIA_PASSWORD=bench", "KOPIA_CHECK_FOR_UPDATES=false",
		"RCLONE_CONFIG=" + j.home + "/rclone", "RCLONE_CONFIG_BENCH_TYPE=s3", "RCLONE_CONFIG_BENCH_PROVIDER=Other",
		"RCLONE_CONFIG_BENCH_ENV_AUTH=true", "RCLONE_CONFIG_BENCH_ENDPOINT=" + s.Endpoint,
		fmt.Sprintf("MC_HOST_bench=http://%s:%s@%s", s.AccessKey, s.SecretKey, j.host),
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := runGroup(cmd); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
