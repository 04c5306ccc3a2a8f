package sandboxtest

import (
	"context"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) snapshotTests() []test {
	return []test{
		{"KeepsFiles", s.testSnapshot},
		{"OutlivesItsSandbox", s.testSnapshotOutlives},
		{"Delete", s.testSnapshotDelete},
	}
}

// snapshot saves a sandbox, and deletes what it saved at the end.
func (s *suite) snapshot(t *testing.T, sb *sandbox.Sandbox) sandbox.Image {
	t.Helper()
	image, err := sb.Snapshot(s.context(t))
	s.needs(t, Snapshots, err)
	t.Cleanup(func() { _ = s.provider.DeleteSnapshot(context.Background(), image.Snapshot) })
	return image
}

func (s *suite) from(t *testing.T, image sandbox.Image) *sandbox.Sandbox {
	t.Helper()
	return s.create(t, func(c *sandbox.Config) { c.Image = image })
}

func (s *suite) testSnapshot(t *testing.T) {
	sb := s.create(t, nil)
	s.sh(t, sb, `mkdir -p deep/er empty && echo one > deep/er/f && chmod 750 deep/er/f && ln -s er/f deep/link &&
		echo home > "$HOME/f" && touch -d @1000000000 deep/er/f && ln deep/er/f deep/hard && printf 'x\nü' > "deep/odd
name"`)
	image := s.snapshot(t, sb)
	equal(t, "snapshot of", image.Base, "")
	s.sh(t, sb, `echo two > deep/er/f; echo more > more`)
	for range 2 {
		made := s.from(t, image)
		equal(t, "content", s.sh(t, made, `cat deep/er/f`), "one")
		equal(t, "content through a link", s.sh(t, made, `cat deep/link`), "one")
		equal(t, "content of an odd name", s.sh(t, made, "cat 'deep/odd\nname'"), "x\nü")
		equal(t, "mode and time", s.sh(t, made, `stat -c '%a %Y' deep/er/f`), "750 1000000000")
		equal(t, "home", s.sh(t, made, `cat "$HOME/f"`), "home")
		equal(t, "what came later", s.sh(t, made, `ls -A . | tr '\n' ' '`), "deep empty ")
		s.sh(t, made, `echo three > deep/er/f; rm -r empty`) // and is its own
	}
	equal(t, "the first, after all that", s.sh(t, sb, `cat deep/er/f`), "two")
}

func (s *suite) testSnapshotOutlives(t *testing.T) {
	sb := s.create(t, nil)
	s.sh(t, sb, "echo kept > f")
	image := s.snapshot(t, sb)
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	made, err := s.second(t).Create(s.context(t), s.config(func(c *sandbox.Config) { c.Image = image }))
	if err != nil {
		t.Fatalf("create from the snapshot by another provider: %v", err)
	}
	s.endWith(t, made)
	equal(t, "content", s.sh(t, made, "cat f"), "kept")
}

func (s *suite) testSnapshotDelete(t *testing.T) {
	sb := s.create(t, nil)
	s.sh(t, sb, "echo kept > f")
	image := s.snapshot(t, sb)
	made := s.from(t, image)
	s.needs(t, SnapshotDrops, s.provider.DeleteSnapshot(s.context(t), image.Snapshot))
	equal(t, "a sandbox made from it", s.sh(t, made, "cat f"), "kept")
	isErr(t, "delete again", s.provider.DeleteSnapshot(s.context(t), image.Snapshot), sandbox.ErrNotFound)
	_, err := s.provider.Create(s.context(t), s.config(func(c *sandbox.Config) { c.Image = image }))
	isErr(t, "create from a deleted snapshot", err, sandbox.ErrNotFound)
}
