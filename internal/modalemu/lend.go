package modalemu

import (
	"context"
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// laterFrom begins another stage of a build, on an image in a registry.
var laterFrom = regexp.MustCompile(`(?i)^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)`)

// copyFrom copies files from an image: its name, and then flags and paths.
var copyFrom = regexp.MustCompile(`(?is)^\s*COPY\s+(?:--\S+\s+)*?--from=(\S+)\s+(.*)$`)

// lendHost lets FROM and COPY --from=… of images in a registry find this
// machine's programs and files, with SourceHost.
func (s *Server) lendHost(ctx context.Context, builder driver.ImageBuilder, r *recipe) error {
	if s.opts.Base != SourceHost {
		return nil
	}
	wanted := make(map[string][]string) // sources by the name of the image
	for _, command := range r.build.Image.Commands {
		if m := laterFrom.FindStringSubmatch(command); m != nil {
			wanted[m[1]] = append(wanted[m[1]], "")
		}
		if m := copyFrom.FindStringSubmatch(command); m != nil {
			wanted[m[1]] = append(wanted[m[1]], copySources(m[2])...)
		}
	}
	for _, name := range names(wanted) {
		if r.build.Images[name] != "" {
			continue
		}
		lent := &driver.Build{Image: driver.Image{Base: s.hostBase()}}
		if script := lendScript(wanted[name]); script != "" {
			lent.Image.Commands = []string{"RUN " + script}
		}
		info, err := builder.BuildImage(ctx, lent)
		if err != nil {
			return err
		}
		r.build.Images[name] = info.ID
	}
	return nil
}

// copySources are the paths that a COPY command copies, all but the last.
func copySources(rest string) []string {
	var paths []string
	if text := strings.TrimSpace(rest); !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &paths) != nil {
		for _, word := range strings.Fields(rest) {
			if !strings.HasPrefix(word, "--") {
				paths = append(paths, word)
			}
		}
	}
	if len(paths) < 2 {
		return nil
	}
	return paths[:len(paths)-1]
}

// lendScript puts copies of files in their own places: an image is what was
// written on top of this machine's files, and so only those can be copied from it.
func lendScript(sources []string) string {
	var words []string
	for _, source := range sources {
		if source = path.Clean("/" + source); source != "/" {
			words = append(words, shellPattern(source))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return "for f in " + strings.Join(words, " ") +
		`; do if [ -e "$f" ]; then cp -aH -- "$f" "$f.lent" && rm -rf -- "$f" && mv -- "$f.lent" "$f" || exit; fi; done`
}

// shellPattern quotes all of a path but what stands for names.
func shellPattern(name string) string {
	var b strings.Builder
	for _, c := range name {
		if !strings.ContainsRune("/*?[]-._", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
