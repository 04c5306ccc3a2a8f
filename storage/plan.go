package storage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// applyTime bounds the exchange of the old files for the new, which goes on when
// the caller's context has ended.
const applyTime = 10 * time.Minute

// maxGroups is to how many directories that stay a restore moves single files.
// Above that it is quicker to write everything anew.
const maxGroups = 200

// plan is how a directory becomes what a version says.
type plan struct {
	stage  []*tree.Entry // to make in the staging directory, in the order of paths
	moves  [][]string    // to move from there, by the directory they go to
	remove []string      // to remove first, with all that is below
	open   []string      // directories to make writable before that
	dirs   []*tree.Entry // whose mode and time are to be set at the end, the deepest first
	staged int           // of dirs, those in front that are also in stage
	root   *tree.Entry   // the directory itself, nil: it stays as it is
}

func (p *plan) empty() bool {
	return len(p.stage)+len(p.remove)+len(p.dirs) == 0 && p.root == nil
}

// planner makes a plan from what is to be and what is there.
type planner struct {
	v     *Volume
	want  *tree.Tree
	known *known
	have  *listing
	all   bool // write everything anew

	same    []bool          // by index in want: it is there already
	guarded map[string]bool // directories that hold something that is not ours
	left    map[string]bool // files of the version that are not made here
	touched map[string]bool // directories that stay, and change
	groups  map[string]int  // by directory, index in moves
	plan    plan
}

// planRestore plans to make a directory that holds have, nil if it is absent, hold
// the version that known describes.
func (v *Volume) planRestore(k *known, have *listing) (*plan, error) {
	if have == nil {
		have = &listing{}
	}
	if len(have.special) > 0 {
		all := *have
		all.entries = slices.Concat(have.entries, have.special)
		sortFound(all.entries)
		have = &all
	}
	p := &planner{v: v, want: k.tree, known: k, have: have, all: v.opts.Paranoid}
	plan, err := p.make()
	if err == nil && len(plan.moves) > maxGroups {
		p.all = true
		plan, err = p.make()
	}
	return plan, err
}

func (p *planner) make() (*plan, error) {
	p.plan, p.touched, p.groups, p.left = plan{}, map[string]bool{}, map[string]int{}, map[string]bool{}
	p.guard()
	p.compare()
	if err := p.walk(); err != nil {
		return nil, err
	}
	p.finish()
	return &p.plan, nil
}

// guard finds the directories that cannot be removed.
func (p *planner) guard() {
	p.guarded = map[string]bool{}
	for _, path := range p.have.outside {
		for path != "" {
			path = tree.Parent(path)
			p.guarded[path] = true
		}
	}
}

// foreign reports whether a path is no part of the volume here.
func (p *planner) foreign(path string) bool {
	i, ok := slices.BinarySearchFunc(p.have.outside, path, tree.ComparePaths)
	return ok || i > 0 && within(path, p.have.outside[i-1])
}

// compare finds what is there already. The names of one file stand or fall
// together.
func (p *planner) compare() {
	p.same = make([]bool, len(p.want.Entries))
	at := map[string]int{} // files with several names
	links := false
	p.pairs(func(i int, e *tree.Entry, f *found) {
		if e != nil {
			p.same[i] = f != nil && p.isSame(e, f)
			links = links || e.Kind == tree.Hardlink
		}
	})
	if !links {
		return
	}
	fresh := map[string]bool{}
	for i := range p.want.Entries {
		if e := &p.want.Entries[i]; e.Kind == tree.Hardlink {
			at[e.Link] = -1
			if !p.same[i] {
				fresh[e.Link] = true
			}
		}
	}
	for i := range p.want.Entries {
		if e := &p.want.Entries[i]; e.Kind == tree.File && !p.same[i] {
			if _, ok := at[e.Path]; ok {
				fresh[e.Path] = true
			}
		}
	}
	for i := range p.want.Entries {
		e := &p.want.Entries[i]
		if e.Kind == tree.Hardlink && fresh[e.Link] || e.Kind == tree.File && fresh[e.Path] {
			p.same[i] = false
		}
	}
}

func (p *planner) isSame(e *tree.Entry, f *found) bool {
	if e.Kind != f.Kind || p.v.opts.Owners && (e.UID != f.UID || e.GID != f.GID) {
		return false
	}
	switch e.Kind {
	case tree.Dir:
		return !p.all || p.guarded[e.Path] || e.Path == ""
	case tree.Hardlink:
		return !p.all && e.Link == f.Link
	case tree.Symlink:
		return !p.all && e.Link == f.Link
	}
	return !p.all && e.Mode == f.Mode && p.known.unchanged(e, f, p.have)
}

// pairs walks through both sides in the order of paths. i is -1 where the version
// lacks the path; f is nil where the directory does.
func (p *planner) pairs(visit func(i int, e *tree.Entry, f *found)) {
	j := 0
	for i := range p.want.Entries {
		e := &p.want.Entries[i]
		for j < len(p.have.entries) && tree.ComparePaths(p.have.entries[j].Path, e.Path) < 0 {
			visit(-1, nil, p.have.entries[j])
			j++
		}
		if j < len(p.have.entries) && p.have.entries[j].Path == e.Path {
			visit(i, e, p.have.entries[j])
			j++
		} else {
			visit(i, e, nil)
		}
	}
	for ; j < len(p.have.entries); j++ {
		visit(-1, nil, p.have.entries[j])
	}
}

// walk decides on every path.
func (p *planner) walk() (err error) {
	gone, moved := "", "" // the last directory that goes, and that comes, whole
	excluded := ""
	fresh := p.have.entries == nil
	p.pairs(func(i int, e *tree.Entry, f *found) {
		if err != nil {
			return
		}
		if e != nil {
			if excluded == "" || !within(e.Path, excluded) {
				excluded = ""
				if p.foreign(e.Path) || p.v.exclude.MatchSelf(e.Path, e.Kind == tree.Dir) {
					excluded = e.Path
				}
			}
			if excluded != "" {
				p.left[e.Path] = true
				return
			}
		}
		if f != nil && f.Path != "" && (e == nil || e.Kind != f.Kind || !p.same[i] && f.Kind == tree.Dir) {
			switch {
			case gone != "" && within(f.Path, gone):
			case !p.guarded[f.Path]:
				gone = f.Path
				if e == nil || f.Kind == tree.Dir || e.Kind == tree.Dir { // else the new one takes its name
					p.plan.remove = append(p.plan.remove, f.Path)
				}
				p.touched[tree.Parent(f.Path)] = true
			case e != nil:
				err = fmt.Errorf("the version has %q where there is a directory with excluded or mounted files: move them away", clip(e.Path))
			}
		}
		switch {
		case e == nil:
		case e.Path == "":
			if f == nil || f.Mode != e.Mode || !sameTime(e.Mtime, f.Mtime, p.have.cut) || fresh {
				p.plan.root = e
			}
		case p.same[i]:
			if e.Kind == tree.Dir && (f.Mode != e.Mode || !sameTime(e.Mtime, f.Mtime, p.have.cut)) {
				p.touched[e.Path] = true
			}
		default:
			if e.Kind == tree.Hardlink && p.left[e.Link] {
				alone := *p.want.Find(e.Link)
				alone.Path = e.Path
				e = &alone
			}
			p.plan.stage = append(p.plan.stage, e)
			if moved != "" && within(e.Path, moved) {
				return
			}
			if e.Kind == tree.Dir {
				moved = e.Path
			}
			p.move(e.Path)
		}
	})
	return err
}

func (p *planner) move(path string) {
	to := tree.Parent(path)
	p.touched[to] = true
	group, ok := p.groups[to]
	if !ok {
		group = len(p.plan.moves)
		p.groups[to] = group
		p.plan.moves = append(p.plan.moves, nil)
	}
	p.plan.moves[group] = append(p.plan.moves[group], path)
}

// finish lists the directories whose modes and times are set at the end.
func (p *planner) finish() {
	for _, e := range slices.Backward(p.plan.stage) {
		if e.Kind == tree.Dir {
			p.plan.dirs = append(p.plan.dirs, e)
		}
	}
	p.plan.staged = len(p.plan.dirs)
	for i := len(p.want.Entries) - 1; i > 0; i-- {
		if e := &p.want.Entries[i]; e.Kind == tree.Dir && p.same[i] && p.touched[e.Path] {
			p.plan.dirs = append(p.plan.dirs, e)
		}
	}
	for _, f := range p.have.entries {
		if f.Kind == tree.Dir && p.touched[f.Path] && f.Mode&0o300 != 0o300 && f.Path != "" {
			p.plan.open = append(p.plan.open, f.Path)
		}
	}
	if p.touched[""] && p.plan.root == nil {
		p.plan.root = &p.want.Entries[0]
	}
}

// planFile is a file of the staging directory.
type planFile struct {
	name string
	data []byte
}

// files gives what scriptHead describes. GNU tar has set the modes and times of
// staged directories already, but for those of directories that their owner could
// not have filled.
func (p *plan) files(d tarstream.Dialect) []planFile {
	files := []planFile{{"open", list(p.open)}, {"rm", list(p.remove)}}
	for i, group := range p.moves {
		files = append(files, planFile{fmt.Sprintf("mv.%d", i), list(group)})
	}
	var archive bytes.Buffer
	var modes []byte
	w := tarstream.NewWriter(&archive, d)
	none := true
	for i, e := range p.dirs {
		if i < p.staged && d == tarstream.Posix && e.Mode&0o700 == 0o700 {
			continue
		}
		none = false
		_ = w.Begin(memberOf(e), nil) // a bytes.Buffer takes everything
		if d == tarstream.Busybox {
			modes = fmt.Appendf(modes, "%o\x00./%s\x00", e.Mode, e.Path)
		}
	}
	_ = w.Close()
	if !none {
		files = append(files, planFile{"dirs", archive.Bytes()}, planFile{"modes", modes})
	}
	if p.root != nil {
		files = append(files, planFile{"root", fmt.Appendf(nil, "%o %s\n", p.root.Mode, tarstream.FormatTime(p.root.Mtime))})
	}
	return files
}

func list(paths []string) []byte {
	var b []byte
	for _, path := range paths {
		b = append(append(append(b, "./"...), path...), 0)
	}
	return b
}

// parseList is the inverse of list.
func parseList(data []byte) (paths []string, err error) {
	for text := range strings.SplitSeq(strings.TrimSuffix(string(data), "\x00"), "\x00") {
		path := strings.TrimPrefix(text, "./")
		if text == "" && len(data) == 0 {
			return nil, nil
		}
		if why := tree.CheckPath(path); why != "" || path == "" {
			return nil, errors.New("a list of paths in the staging directory cannot be read")
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// order gives the order in which entries are made: directories, then files in the
// order of their contents in the bucket, then links, which may refer to files.
func (p *plan) order() (all, files []*tree.Entry, bytes int64) {
	packs := map[*tree.Pack]int{}
	where := func(e *tree.Entry) (int, uint32, uint32) {
		for _, c := range e.Chunks {
			if c.Blob != nil {
				return packs[c.Blob.Frame.Pack], c.Blob.Frame.Off, c.Blob.Off
			}
		}
		return -1, 0, 0
	}
	var links, hard []*tree.Entry
	for _, e := range p.stage {
		switch e.Kind {
		case tree.Dir:
			all = append(all, e)
		case tree.File:
			files = append(files, e)
			for _, c := range e.Chunks {
				if c.Blob != nil {
					bytes += c.Size
					if _, ok := packs[c.Blob.Frame.Pack]; !ok {
						packs[c.Blob.Frame.Pack] = len(packs)
					}
				}
			}
		case tree.Symlink:
			links = append(links, e)
		case tree.Hardlink:
			hard = append(hard, e)
		}
	}
	slices.SortStableFunc(files, func(a, b *tree.Entry) int {
		p1, f1, o1 := where(a)
		p2, f2, o2 := where(b)
		return cmp.Or(cmp.Compare(p1, p2), cmp.Compare(f1, f2), cmp.Compare(o1, o2))
	})
	return slices.Concat(all, files, links, hard), files, bytes
}
