package peerbench

import (
	"context"
	cryptorand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/storage"
)

// tree is a directory to keep. What it holds is the same in every run.
type tree struct {
	name  string
	dir   string
	files []string // relative to dir
	edits int
}

// words is what the text of files is made of: few of them are much of it, as in
// source code.
type words struct {
	rng   *rand.Rand
	zipf  *rand.Zipf
	vocab []string
}

func newWords(seed uint64) *words {
	rng := rand.New(rand.NewPCG(seed, 4))
	w := &words{rng: rng, zipf: rand.NewZipf(rng, 1.1, 4, 5999)}
	for range 6000 {
		w.vocab = append(w.vocab, w.letters(2+rng.IntN(9)))
	}
	return w
}

func (w *words) letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + w.rng.IntN(26))
	}
	return string(b)
}

// text gives n bytes of which zstd -1 leaves about 47 in 100.
func (w *words) text(n int) []byte {
	marks := []string{" ", " ", " ", "(", ", ", ") ", ".", "\n\t", "\n\n", " = "}
	var b strings.Builder
	for b.Len() < n {
		if w.rng.IntN(100) < 19 {
			b.WriteString(w.letters(3 + w.rng.IntN(10)))
		} else {
			b.WriteString(w.vocab[w.zipf.Uint64()])
		}
		b.WriteString(marks[w.rng.IntN(len(marks))])
	}
	return []byte(b.String()[:n])
}

// repoTree makes files of 1 to 16 KiB in 27 folders for every top folder.
func repoTree(dir string, files, tops int) (*tree, error) {
	t, w := &tree{name: "repo", dir: dir}, newWords(1)
	folders := make([]string, 0, 27*tops)
	for i := range tops {
		top := fmt.Sprintf("top%02d", i)
		folders = append(folders, top)
		for j := range 26 {
			folders = append(folders, fmt.Sprintf("%s/sub%02d", top, j))
		}
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range files {
		name := fmt.Sprintf("%s/file%05d.go", folders[i%len(folders)], i)
		t.files = append(t.files, name)
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, w.text(1024+w.rng.IntN(15*1024)), 0o644); err != nil {
			return nil, err
		}
		// Older than any object: some peers compare that, in whole seconds.
		when := old.Add(time.Duration(i) * 123_457)
		if err := os.Chtimes(name, when, when); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// bigTree makes files of random bytes.
func bigTree(name, dir string, files int, size int64) (*tree, error) {
	t := &tree{name: name, dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	rng := rand.NewChaCha8([32]byte{2})
	for i := range files {
		file := fmt.Sprintf("big%d.bin", i)
		t.files = append(t.files, file)
		if err := randomFile(filepath.Join(dir, file), rng, size); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func randomFile(name string, rng *rand.ChaCha8, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), size)]
		_, _ = rng.Read(buf) // never fails
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Close()
}

// edit writes n of the files anew, in the size they had, and gives their names.
func (t *tree) edit(n int) ([]string, error) {
	t.edits++
	w := newWords(uint64(100 + t.edits))
	var names []string
	for i := range n {
		name := t.files[(i*len(t.files)/n+t.edits*7)%len(t.files)]
		names = append(names, name)
		info, err := os.Stat(filepath.Join(t.dir, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(t.dir, name), w.text(int(info.Size())), 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

const (
	contentScript = `cd "$1" && find . -type f -print0 | xargs -0 sha256sum | LC_ALL=C sort | sha256sum`
	wholeScript   = `cd "$1" && { find . -mindepth 1 -printf '%y %m %T@ %l %p\n'; find . -type f -print0 | xargs -0 sha256sum; } | LC_ALL=C sort | sha256sum`
)

// digest sums up a directory where run runs: names and contents, and with whole
// also kinds, modes and times.
func digest(ctx context.Context, run storage.Runner, dir string, whole bool) (string, error) {
	script := contentScript
	if whole {
		script = wholeScript
	}
	var out strings.Builder
	if err := run.Run(ctx, nil, &out, "sh", "-c", script, "sh", dir); err != nil {
		return "", fmt.Errorf("sum up %s: %w", dir, err)
	}
	return out.String(), nil
}

// overwrite puts n random bytes into a file.
func overwrite(name string, offset, n int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, n)
	if _, err := cryptorand.Read(data); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		return err
	}
	return f.Close()
}
