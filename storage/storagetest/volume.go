package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
)

// ExerciseVolume runs the suite that a storage.Volume passes on every runner, one
// subtest for each promise. open gives a runner and an absolute path in its
// sandbox that does not exist and whose parent is writable; clean-up is left to
// t.Cleanup. It is called once for each subtest. The sandbox needs sha256sum, readlink
// and sort beside what package storage asks for.
func ExerciseVolume(t *testing.T, open func(t *testing.T) (sb storage.Runner, dir string)) {
	promises := []struct {
		name string
		test func(*testing.T, *box)
	}{
		{"InitOfNewVolumeDoesNothing", initOfNew},
		{"RestoreGivesTheTreeThatWasSynced", roundTrip},
		{"RestoreGivesAnOlderVersion", restoreOlder},
		{"RestoreDeletesWhatIsExtra", restoreDeletes},
		{"RestoreMakesTheDirectory", restoreMakesDir},
		{"RestoreOfEmptyVersion", restoreEmpty},
		{"RestoreOverReadOnlyDirectories", restoreReadOnly},
		{"RestoreOfUnknownVersionIsNotExist", restoreUnknown},
		{"RestoreOfDamageKeepsFiles", restoreDamaged},
		{"RestoreOfCutStreamKeepsFiles", restoreCut},
		{"RestoreCancelledKeepsFiles", restoreCancelled},
		{"RestoreFollowsNoLink", restoreFollowsNoLink},
		{"RestoreLeavesWhatIsEqual", restoreInPlace},
		{"RestoreOfManyDirectories", restoreManyDirs},
		{"RestoreOfOtherKinds", restoreOtherKinds},
		{"RestoreOfHardLinks", restoreHardLinks},
		{"ExcludedFilesAreLeftAlone", excluded},
		{"BrokenOffRestoreIsRemoved", brokenStage},
		{"BrokenOffRestoreIsFinished", brokenExchange},
		{"InitRestoresTheNewest", initNewest},
		{"SyncOfAbsentDirectoryIsNotExist", syncAbsent},
		{"SyncRefusesALinkAsDirectory", syncLink},
		{"SyncStripsSetuid", syncStripsSetuid},
		{"SyncKeepsSparseFilesWhole", syncSparse},
		{"SyncSkipsWhatIsNoFile", syncSkips},
		{"SyncReadsOnlyWhatChanged", syncReadsLittle},
		{"SyncFindsEditsThatHide", syncHiddenEdits},
		{"SyncsAtOnceMakeOneLine", syncsAtOnce},
		{"VersionsAreNewestFirst", versionsOrder},
		{"DirectoryMustBeAbsolute", dirMustBeAbsolute},
	}
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			sb, dir := open(t)
			b := &box{T: t, sb: sb, dir: dir}
			b.vol = storage.NewVolume(&b.bucket, "acme/workspace-7", nil)
			p.test(t, b)
		})
	}
}

// box is a directory in a sandbox, with a volume of its own.
type box struct {
	*testing.T
	sb     storage.Runner
	dir    string
	bucket Memory
	vol    *storage.Volume
}

// sh runs a script in the directory's parent, with the directory as $1.
func (b *box) sh(script string) string {
	b.Helper()
	var out bytes.Buffer
	err := b.sb.Run(b.Context(), nil, &out, "sh", "-c", "set -eu; umask 022; cd \"${1%/*}\"\n"+script, "sh", b.dir)
	if err != nil {
		b.Fatalf("%s: %v\n%s", script, err, out.Bytes())
	}
	return out.String()
}

// fill replaces the directory by what the script makes in it.
func (b *box) fill(script string) {
	b.Helper()
	b.sh(`find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null || :
rm -rf "$1"; mkdir "$1"; cd "$1"
` + script)
}

// state describes everything in the directory, in an order of its own. Times are
// left out for links and for the directory itself, and are to the second where tar
// is not GNU's.
func (b *box) state() string {
	b.Helper()
	return b.sh(`
cd "$1" 2>/dev/null || { echo absent; exit; }
export LC_ALL=C
case $(tar --version 2>/dev/null) in *'GNU tar'*) format='%a %F %y' ;; *) format='%a %F %Y' ;; esac
find . ! -name . -exec sh -c '
	for f do
		if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"; continue; fi
		s=$(stat -c "$0" "$f")
		if [ -f "$f" ]; then s="$s $(sha256sum <"$f" || echo unreadable)"; fi
		echo "$f $s"
	done' "$format" {} + | sort`)
}

func (b *box) sync() *storage.Version {
	b.Helper()
	v, err := b.vol.Sync(b.Context(), b.sb, b.dir)
	if err != nil {
		b.Fatalf("Sync: %v", err)
	}
	return v
}

func (b *box) restore(id string) {
	b.Helper()
	if err := b.vol.Restore(b.Context(), b.sb, b.dir, id); err != nil {
		b.Fatalf("Restore: %v", err)
	}
}

func (b *box) wantState(want string) {
	b.Helper()
	if got := b.state(); got != want {
		b.Fatalf("the directory holds\n%s\nwant\n%s", got, want)
	}
}

// oddTree makes one of everything that a version keeps.
const oddTree = `
mkdir -p src/deep/er empty 'dir with space' locked closed
printf 'package main\n' >src/main.go
printf '%0300000d' 7 >src/deep/er/large
: >src/deep/empty-file
printf one >./-rf; printf two >'--help'; printf three >'new
line'; printf four >"$(printf 'not\377utf8')"; printf five >'back\slash"quote'
printf six >.hidden; mkdir ..odd; printf seven >..odd/...; printf eight >'dir with space/ file '
printf nine >'*'; printf ten >é; printf eleven >'$(id)'
n=name-of-fifty-characters-so-that-three-pass-the-100.
mkdir -p "$n/$n"; printf twelve >"$n/$n/$n"; ln -s "$n/$n/$n" "$n/link"; ln "$n/$n/$n" "$n/$n/hard"
ln -s src/main.go link; ln -s /etc/passwd absolute; ln -s ../../.. up; ln -s nowhere dangling; ln -s src linkdir
ln src/main.go hard
printf x >mode-000-x; chmod 0100 mode-000-x; chmod 0400 .hidden; chmod 0755 src/main.go; chmod 1777 empty; chmod 0700 ..odd
if [ "$(id -u)" != 0 ]; then chmod 0500 mode-000-x; fi
printf y >locked/file; chmod 0555 locked
touch -d '2001-02-03 04:05:06' src/deep/er/large; touch -d '2002-03-04 05:06:07' src
`

func initOfNew(t *testing.T, b *box) {
	if err := b.vol.Init(t.Context(), b.sb, b.dir); err != nil {
		t.Fatal(err)
	}
	b.wantState("absent\n")
	b.fill("echo kept >file")
	before := b.state()
	if err := b.vol.Init(t.Context(), b.sb, b.dir); err != nil {
		t.Fatal(err)
	}
	b.wantState(before)
}

func roundTrip(t *testing.T, b *box) {
	b.fill(oddTree)
	before := b.state()
	v := b.sync()
	b.wantState(before)
	if v.Files != 19 || v.Dirs != 10 || v.Links != 6 || v.Size < 300000 || v.Stored == 0 || v.Added < v.Stored || len(v.Changed) != 0 {
		t.Errorf("version %+v", v)
	}
	b.fill("echo other >file; mkdir src; ln -s nowhere empty; echo x >src/extra")
	b.restore(v.ID)
	b.wantState(before)
	if links := b.sh(`stat -c %h "$1/hard"`); links != "2\n" {
		t.Errorf("a hard link has %q names after Restore", links)
	}
	b.restore(v.ID)
	b.wantState(before)
}

func restoreOlder(t *testing.T, b *box) {
	var ids, states []string
	for i := range 3 {
		b.fill(fmt.Sprintf("echo %d >file; echo x >only-in-%d", i, i))
		ids, states = append(ids, b.sync().ID), append(states, b.state())
	}
	for _, i := range []int{1, 0, 2, 0} {
		b.restore(ids[i])
		b.wantState(states[i])
	}
}

func restoreDeletes(t *testing.T, b *box) {
	b.fill("mkdir d; echo x >d/kept")
	before := b.state()
	v := b.sync()
	b.sh(`cd "$1"; echo y >d/extra; mkdir e .git; echo z >.git/HEAD; echo w >..more`)
	b.restore(v.ID)
	b.wantState(before)
}

func restoreMakesDir(t *testing.T, b *box) {
	b.fill("echo x >file; chmod 0750 .")
	v, before := b.sync(), b.state()
	b.dir += "-elsewhere/below/it"
	b.restore(v.ID)
	b.wantState(before)
	if mode := b.sh(`stat -c %a "$1"`); mode != "750\n" {
		t.Errorf("mode of the directory itself: %q", mode)
	}
}

func restoreEmpty(t *testing.T, b *box) {
	b.fill("")
	v := b.sync()
	if v.Files != 0 || v.Size != 0 {
		t.Errorf("version %+v", v)
	}
	b.fill("echo x >file; mkdir .d")
	b.restore(v.ID)
	b.wantState("")
}

func restoreReadOnly(t *testing.T, b *box) {
	b.fill("mkdir -p mod/sub; echo x >mod/sub/file; chmod 0555 mod/sub mod")
	before := b.state()
	v := b.sync()
	b.fill("mkdir -p old/sub mod; echo x >old/sub/file; chmod 0555 old/sub old mod")
	b.restore(v.ID)
	b.wantState(before)
	b.fill("")
}

func restoreUnknown(t *testing.T, b *box) {
	b.fill("echo x >file")
	v, before := b.sync(), b.state()
	last := "a"
	if strings.HasSuffix(v.ID, "a") {
		last = "b"
	}
	for _, id := range []string{"", "no-such-id", "../" + v.ID, v.ID + "x", v.ID[:len(v.ID)-1] + last, v.ID + ".json"} {
		err := b.vol.Restore(t.Context(), b.sb, b.dir, id)
		wantIs(t, fmt.Sprintf("Restore of %q", id), err, fs.ErrNotExist)
	}
	b.wantState(before)
}

// broken gives the volume on a bucket that changes packs and listings as they are
// read.
func (b *box) broken(change func(io.Reader) io.Reader) *storage.Volume {
	return storage.NewVolume(&changing{Bucket: &b.bucket, change: change}, b.vol.Name(), nil)
}

type changing struct {
	storage.Bucket
	change func(io.Reader) io.Reader
}

func (c *changing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := c.Bucket.Get(ctx, key, offset, length)
	if err == nil && (strings.Contains(key, "/_packs/") || strings.Contains(key, "/_trees/")) {
		return cutStream{c.change(r), r}, nil
	}
	return r, err
}

// twoVersions stores a version of 2 MB of noise and then fills the directory with
// something else.
func (b *box) twoVersions() (id, before string) {
	b.fill("tar -c -f - /bin /usr/bin 2>/dev/null | head -c 2000000 >noise || :; mkdir d; echo new >d/file")
	id = b.sync().ID
	b.fill("mkdir -p d; echo old >d/file; echo x >extra")
	return id, b.state()
}

func restoreDamaged(t *testing.T, b *box) {
	id, before := b.twoVersions()
	for _, at := range []int{0, 3, 100, 5000, 100_000} {
		vol := b.broken(func(r io.Reader) io.Reader {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Error(err)
			}
			if data = bytes.Clone(data); at < len(data) {
				data[at] ^= 0x10
			}
			return bytes.NewReader(data)
		})
		wantIs(t, "Restore", vol.Restore(t.Context(), b.sb, b.dir, id), storage.ErrCorrupt)
		b.wantState(before)
	}
	for name, change := range map[string]func(io.Reader) io.Reader{
		"empty": func(io.Reader) io.Reader { return strings.NewReader("") },
		"short": func(r io.Reader) io.Reader { return io.LimitReader(r, 50_000) },
	} {
		wantIs(t, name, b.broken(change).Restore(t.Context(), b.sb, b.dir, id), storage.ErrCorrupt)
		b.wantState(before)
	}
	for _, key := range keys(t, &b.bucket, b.vol.Name()+"/_packs/") {
		if err := b.bucket.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	err := b.vol.Restore(t.Context(), b.sb, b.dir, id)
	wantIs(t, "missing", err, storage.ErrCorrupt)
	if !strings.Contains(err.Error(), "/_packs/") {
		t.Errorf("the error does not name the object: %v", err)
	}
	b.wantState(before)
}

func restoreCut(t *testing.T, b *box) {
	id, before := b.twoVersions()
	for _, after := range []int64{0, 10, 100_000} {
		faulty := &Faulty{CutAfter: after}
		err := b.broken(faulty.cut).Restore(t.Context(), b.sb, b.dir, id)
		wantIs(t, "Restore", err, ErrInjected)
		b.wantState(before)
	}
}

func restoreCancelled(t *testing.T, b *box) {
	id, before := b.twoVersions()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	vol := b.broken(func(r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, 100_000), callback(cancel), stuck{ctx})
	})
	wantIs(t, "Restore", vol.Restore(ctx, b.sb, b.dir, id), context.Canceled)
	b.wantState(before)
}

// stuck is a stream that gives nothing until its context ends.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func restoreFollowsNoLink(t *testing.T, b *box) {
	b.fill("mkdir -p d/e .vivid; echo new >d/e/file; echo new >plain; echo new >.vivid/x")
	v, before := b.sync(), b.state()
	b.sh(`rm -rf "$1" outside; mkdir "$1" outside; echo safe >outside/file; mkdir outside/e; echo safe >outside/e/file
cd "$1"; ln -s ../outside d; ln -s ../outside/file plain; ln -s ../outside .vivid
ln -s ../outside .vivarium-restore-planted; mkdir .vivarium-restore-other; ln -s ../../outside .vivarium-restore-other/old`)
	b.restore(v.ID)
	b.wantState(before)
	if got := b.sh("cd outside; find . | sort; cat file e/file"); got != ".\n./e\n./e/file\n./file\nsafe\nsafe\n" {
		t.Fatalf("outside now holds %q", got)
	}
}

func restoreInPlace(t *testing.T, b *box) {
	b.fill("mkdir -p keep/deep change locked; echo a >keep/a; echo b >keep/deep/b; echo c >change/c; echo d >change/d; echo e >locked/e; ln -s a keep/link; chmod 0555 locked")
	before := b.state() // so that time passes: what is written during a listing counts as changed
	v := b.sync()
	inodes := func() string { return b.sh(`cd "$1"; stat -c '%n %i' keep/a keep/deep/b keep/link change/d`) }
	was := inodes()
	b.sh(`cd "$1"; echo new >change/c; echo x >change/extra; mkdir -p keep/more/and; echo y >keep/more/and/more; chmod 0700 keep/deep; chmod u+w locked; echo z >locked/z; chmod 0555 locked`)
	b.restore(v.ID)
	b.wantState(before)
	if now := inodes(); now != was {
		t.Errorf("equal files were written anew: inodes\n%swere\n%s", now, was)
	}
}

// Above some number of directories a restore writes everything anew.
func restoreManyDirs(t *testing.T, b *box) {
	b.fill(`i=0; while [ $i -lt 300 ]; do mkdir d$i; echo $i >d$i/file; i=$((i+1)); done; mkdir 'd1/sub dir'; ln -s ../d2 d1/link`)
	v, before := b.sync(), b.state()
	b.sh(`cd "$1"; for d in *; do echo other >$d/file; echo x >$d/extra; done; rm -rf d7; mkdir d1/more`)
	b.restore(v.ID)
	b.wantState(before)
}

func restoreOtherKinds(t *testing.T, b *box) {
	b.fill("mkdir -p a/b; echo x >a/b/file; echo file >f; ln -s f l; mkdir d; echo y >d/y; echo p >p; mkdir q; echo q >q/q")
	v, before := b.sync(), b.state()
	b.sh(`cd "$1"; rm -rf a f l d p q; echo file >a; mkdir -p f/sub; echo x >f/sub/x; mkdir l; echo z >l/z; ln -s /etc d; mkfifo p q; mkdir extra; mkfifo extra/pipe`)
	b.restore(v.ID)
	b.wantState(before)
}

func restoreHardLinks(t *testing.T, b *box) {
	b.fill("mkdir d; echo one >a; ln a b; ln a d/c; echo two >x; ln x d/y; echo alone >z")
	v, before := b.sync(), b.state()
	if v.Files != 6 || v.Size != 4+4+6 {
		t.Errorf("version %+v", v)
	}
	count := func() string { return b.sh(`cd "$1"; stat -c '%n %h' a b d/c x d/y z`) }
	links := count()
	for _, change := range []string{"rm b; echo one >b", "echo 1 >d/c", "rm a", "rm -rf d", "ln -f x z", "rm x; ln d/y x; ln x more"} {
		b.sh(`cd "$1"; ` + change)
		b.restore(v.ID)
		b.wantState(before)
		if now := count(); now != links {
			t.Errorf("after %q: links\n%swere\n%s", change, now, links)
		}
	}
}

func excluded(t *testing.T, b *box) {
	b.vol = storage.NewVolume(&b.bucket, "acme/workspace-7", &storage.Options{Exclude: []string{"/cache/", "*.log", "!keep.log"}})
	b.fill("mkdir -p cache sub/cache; echo a >a; echo c >cache/c; echo l >x.log; echo k >keep.log; echo s >sub/cache/s; echo y >sub/y.log")
	v := b.sync()
	if v.Files != 3 {
		t.Errorf("%d files in the version, want a, keep.log and sub/cache/s", v.Files)
	}
	b.sh(`cd "$1"; echo changed >a; echo more >cache/more; echo changed >x.log; mkdir -p extra/deep; echo z >extra/z; echo z >extra/deep/z.log`)
	b.restore(v.ID)
	if got := b.sh(`cd "$1"; find . ! -type d | sort; cat a x.log`); got != "./a\n./cache/c\n./cache/more\n./extra/deep/z.log\n./keep.log\n./sub/cache/s\n./sub/y.log\n./x.log\na\nchanged\n" {
		t.Errorf("the directory holds %s", got)
	}
}

const staging = ".vivarium-restore-abc"

func brokenStage(t *testing.T, b *box) {
	b.fill("echo x >file; mkdir dir")
	before := b.state()
	id := b.sync().ID
	leave := fmt.Sprintf(`cd "$1"; mkdir -p %[1]s/new/half; echo y >%[1]s/new/half/file; chmod 0500 %[1]s/new/half
printf './file\0' >%[1]s/rm; printf './half\0' >%[1]s/mv.0`, staging)
	b.sh(leave)
	second := b.sync()
	b.wantState(before)
	b.sh(leave)
	b.restore(id)
	b.wantState(before)
	b.restore(second.ID)
	b.wantState(before)
}

// A restore that was broken off at each of its steps is finished by what comes next.
func brokenExchange(t *testing.T, b *box) {
	b.fill("echo new >file; mkdir -p dir/sub; echo y >dir/file; echo z >dir/sub/z; echo kept >kept")
	after := b.state()
	for i, step := range []string{
		"",
		"rm -f old; rm -rf dir",
		"rm -f old; rm -rf dir; mkdir %[1]s/cleared",
		"rm -f old; rm -rf dir; mkdir %[1]s/cleared; mv %[1]s/new/dir .",
		"rm -f old; rm -rf dir; mkdir %[1]s/cleared; mv -f %[1]s/new/* .",
	} {
		b.sh(fmt.Sprintf(`cd "$1"; mkdir -p %[1]s/new; mv dir %[1]s/new/; cp -p file %[1]s/new/; echo old >file; echo x >old; mkdir -p dir; echo old >dir/old
cd %[1]s; : >open; printf './old\0./dir\0' >rm; printf './dir\0./file\0' >mv.0; mkdir go
cd ..; `+step, staging))
		if i%2 == 0 {
			b.sync()
		} else if err := b.vol.Init(t.Context(), b.sb, b.dir); err != nil {
			t.Fatal(err)
		}
		b.wantState(after)
	}
}

func initNewest(t *testing.T, b *box) {
	b.fill("echo one >file")
	b.sync()
	b.fill("echo two >file")
	b.sync()
	newest := b.state()
	b.fill("echo three >file; echo x >extra")
	if err := b.vol.Init(t.Context(), b.sb, b.dir); err != nil {
		t.Fatal(err)
	}
	b.wantState(newest)
}

func syncAbsent(t *testing.T, b *box) {
	_, err := b.vol.Sync(t.Context(), b.sb, b.dir)
	wantIs(t, "Sync", err, fs.ErrNotExist)
	b.wantVersions(0)
	b.sh(`echo x >"$1"`)
	if _, err := b.vol.Sync(t.Context(), b.sb, b.dir); err == nil {
		t.Fatal("Sync of a regular file succeeded")
	}
	b.wantVersions(0)
}

func (b *box) wantVersions(n int) {
	b.Helper()
	if got := len(keys(b.T, &b.bucket, b.vol.Name()+"/_versions/")); got != n {
		b.Fatalf("the bucket holds %d versions; want %d", got, n)
	}
}

func syncLink(t *testing.T, b *box) {
	b.sh(`mkdir real; echo x >real/file; ln -s real "$1"`)
	if _, err := b.vol.Sync(t.Context(), b.sb, b.dir); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Fatalf("Sync through a symbolic link: %v", err)
	}
	link := b.dir
	b.dir = path.Join(path.Dir(b.dir), "real")
	v, before := b.sync(), b.state()
	if err := b.vol.Restore(t.Context(), b.sb, link, v.ID); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Fatalf("Restore through a symbolic link: %v", err)
	}
	b.wantState(before)
}

func syncStripsSetuid(t *testing.T, b *box) {
	b.fill("echo x >prog; mkdir shared sticky; chmod 6755 prog; chmod 2775 shared; chmod 1777 sticky")
	v := b.sync()
	b.fill("")
	b.restore(v.ID)
	if got := b.sh(`cd "$1"; stat -c %a prog shared sticky`); got != "755\n775\n1777\n" {
		t.Fatalf("modes after Restore: %q", got)
	}
}

func syncSparse(t *testing.T, b *box) {
	b.fill(`mkdir d; dd if=/dev/zero of=d/sparse bs=1 count=0 seek=20000000 2>/dev/null
printf tail >>d/sparse; printf head | dd of=d/sparse conv=notrunc 2>/dev/null
dd if=/dev/zero of=hole bs=1 count=0 seek=5000000 2>/dev/null`)
	before := b.state()
	v := b.sync()
	if v.Size != 25_000_004 || v.Files != 2 {
		t.Errorf("version %+v", v)
	}
	b.fill("")
	b.restore(v.ID)
	b.wantState(before)
	if strings.Contains(b.sh("tar --version 2>/dev/null || :"), "GNU tar") {
		if got := b.sh(`[ "$(stat -c %b "$1/d/sparse")" -lt 2000 ] && echo sparse || echo full`); got != "sparse\n" {
			t.Errorf("the sparse file came back %s", got)
		}
	}
}

func syncSkips(t *testing.T, b *box) {
	b.fill("echo x >file; mkdir d; mkfifo d/pipe")
	v := b.sync()
	if v.Files != 1 || v.SkippedCount != 1 || len(v.Skipped) != 1 || v.Skipped[0] != "d/pipe" {
		t.Errorf("version %+v", v)
	}
}

// counting counts the bytes that a sandbox sends.
type counting struct {
	storage.Runner
	n *int64
}

func (c counting) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	return c.Runner.Run(ctx, stdin, countingWriter{stdout, c.n}, name, args...)
}

type countingWriter struct {
	io.Writer
	n *int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return c.Writer.Write(p)
}

func syncReadsLittle(t *testing.T, b *box) {
	b.fill("tar -c -f - /bin /usr/bin 2>/dev/null | head -c 2000000 >noise || :; echo x >small; ln -s small link; mkdir d; echo y >d/y; ln d/y d/z")
	first := b.sync()
	b.sync() // what had just been written is read a second time
	if _, local := b.sb.(storage.Local); !local {
		var n int64
		same, err := b.vol.Sync(t.Context(), counting{b.sb, &n}, b.dir)
		if err != nil || n > 20_000 || same.Added != 0 || same.Size != first.Size || same.Files != 4 {
			t.Errorf("a sync of nothing new had %d bytes sent: %+v, %v", n, same, err)
		}
	}
	b.sh(`cd "$1"; echo z >d/new; mv small renamed; cp noise copy`)
	if v := b.sync(); v.Added > 50_000 || v.Files != 6 {
		t.Errorf("contents that are known were stored again: %+v", v)
	}
	before := b.state()
	b.fill("")
	b.restore(b.sync().Parent)
	b.wantState(before)
}

// Neither size nor time of these files tells that they changed.
func syncHiddenEdits(t *testing.T, b *box) {
	b.fill("echo one >a; echo one >b; touch -d '2001-02-03 04:05:06' a b; cp -p a keep")
	b.sync()
	b.sync()
	b.sh(`cd "$1"; echo two >a; touch -r keep a; echo two >new; touch -r keep new; mv new b`)
	v := b.sync()
	before := b.state()
	b.fill("")
	b.restore(v.ID)
	b.wantState(before)
	if got := b.sh(`cd "$1"; cat a b`); got != "two\ntwo\n" {
		t.Errorf("the files hold %q", got)
	}
}

func syncsAtOnce(t *testing.T, b *box) {
	b.fill("echo x >file; mkdir dir")
	before := b.state()
	const syncs = 4
	run := func(vol *storage.Volume) (versions []*storage.Version, lost int) {
		all, errs := make([]*storage.Version, syncs), make([]error, syncs)
		var wg sync.WaitGroup
		for i := range syncs {
			wg.Go(func() { all[i], errs[i] = vol.Sync(t.Context(), b.sb, b.dir) })
		}
		wg.Wait()
		for i, err := range errs {
			var conflict *storage.ConflictError
			switch {
			case errors.As(err, &conflict):
				wantIs(t, "Sync", err, storage.ErrConflict)
				lost++
			case err != nil:
				t.Fatal(err)
			}
			if all[i] != nil {
				versions = append(versions, all[i])
			}
		}
		return versions, lost
	}
	versions, lost := run(b.vol)
	if len(versions)+lost != syncs || len(versions) == 0 {
		t.Errorf("%d syncs made %d versions, and %d lost", syncs, len(versions), lost)
	}
	b.wantVersions(len(versions))
	kept, _ := run(storage.NewVolume(&b.bucket, b.vol.Name(), &storage.Options{KeepConflict: true}))
	if len(kept) != syncs {
		t.Errorf("%d of %d versions were kept", len(kept), syncs)
	}
	b.wantVersions(len(versions) + len(kept))
	for _, v := range append(versions, kept...) {
		b.fill("")
		b.restore(v.ID)
		b.wantState(before)
	}
}

func versionsOrder(t *testing.T, b *box) {
	for v, err := range b.vol.Versions(t.Context()) {
		t.Fatalf("a new volume has %v, %v", v, err)
	}
	b.fill("echo x >file")
	var made []*storage.Version
	for range 20 {
		made = append(made, b.sync())
	}
	i := len(made)
	for v, err := range b.vol.Versions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if i--; v.ID != made[i].ID || !v.Time.Equal(made[i].Time) || v.Files != 1 || v.Size != 2 || v.Stored != made[i].Stored {
			t.Fatalf("version %d: %+v; want %+v", i, v, made[i])
		}
	}
	if i != 0 {
		t.Fatalf("%d versions are missing", i)
	}
}

func dirMustBeAbsolute(t *testing.T, b *box) {
	b.fill("echo x >file")
	v := b.sync()
	for _, dir := range []string{"", ".", "relative", "/", "//", "/..", "/nul\x00"} {
		_, err := b.vol.Sync(t.Context(), b.sb, dir)
		wantIs(t, fmt.Sprintf("Sync of %q", dir), err, fs.ErrInvalid)
		wantIs(t, fmt.Sprintf("Restore to %q", dir), b.vol.Restore(t.Context(), b.sb, dir, v.ID), fs.ErrInvalid)
	}
}
