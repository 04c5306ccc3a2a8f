package claude_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/sandbox"
)

// A conversation goes on in another sandbox, in another directory.
func TestRealSessionsTravel(t *testing.T) {
	model := claudetest.NewHandler(claudetest.Sequence(bash("seq 200000"), claudetest.Text("marker-one"), claudetest.Text("two")), nil)
	opts := with(model)
	opts.Title = "about numbers"
	first := claude.NewClient(realBox(t), opts)
	if all, err := first.ListSessions(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("ListSessions of a new sandbox = %+v, %v", all, err)
	}
	st, err := first.Query(t.Context(), "count for me")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	mustResult(t, st)
	id := st.SessionID()
	all, err := first.ListSessions(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("ListSessions = %+v, %v", all, err)
	}
	if s := all[0]; s.ID != id || s.FirstPrompt != "count for me" || s.Dir != "/workspace" || s.Size == 0 || s.Modified.IsZero() || s.Title != "about numbers" {
		t.Errorf("ListSessions = %+v", s)
	}
	var archive bytes.Buffer
	if err := first.ExportSession(t.Context(), id, &archive); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(archive.String(), "tool-results") {
		t.Error("the long result of the tool is not in the archive")
	}

	elsewhere := with(model)
	elsewhere.Dir = "/tmp"
	second := claude.NewClient(realBox(t), elsewhere)
	got, err := second.ImportSession(t.Context(), bytes.NewReader(archive.Bytes()))
	if err != nil || got != id {
		t.Fatalf("ImportSession = %s, %v", got, err)
	}
	if _, err := second.ImportSession(t.Context(), bytes.NewReader(archive.Bytes())); !errors.Is(err, fs.ErrExist) {
		t.Errorf("ImportSession again: %v, want fs.ErrExist", err)
	}
	s, err := second.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if res := mustResult(t, send(t, s, "and now?")); res.Text != "two" {
		t.Errorf("it says %q", res.Text)
	}
	if said := conversation(model); !strings.Contains(said, "count for me") || !strings.Contains(said, "marker-one") {
		t.Errorf("the model was told %q: the turns before are missing", said)
	}
	if err := second.DeleteSession(t.Context(), id); !errors.Is(err, claude.ErrSessionInUse) {
		t.Errorf("DeleteSession of an open one: %v, want ErrSessionInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.DeleteSession(t.Context(), id); err != nil {
		t.Error(err)
	}
	if all, err := second.ListSessions(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("after DeleteSession: %+v, %v", all, err)
	}
	if err := second.ExportSession(t.Context(), id, &archive); !errors.Is(err, claude.ErrUnknownConversation) {
		t.Errorf("ExportSession: %v, want ErrUnknownConversation", err)
	}
}

func TestRealContinue(t *testing.T) {
	sb := realBox(t)
	opts := scripted(claudetest.Text("hello"))
	opts.Continue = true
	if _, err := claude.Query(t.Context(), sb, "x", opts); !errors.Is(err, claude.ErrUnknownConversation) {
		t.Errorf("Continue of nothing: %v, want ErrUnknownConversation", err)
	}
	opts.Continue = false
	one := ask(t, sb, "x", opts)
	mustResult(t, one)
	opts.Continue = true
	two := ask(t, sb, "y", opts)
	if mustResult(t, two); two.SessionID() != one.SessionID() {
		t.Errorf("Continue went on in %s, not %s", two.SessionID(), one.SessionID())
	}
}

// Another process knows nothing of what this one has open.
func TestRealLockAcrossProcesses(t *testing.T) {
	sb := realBox(t)
	var gate claudetest.Gate
	s, err := claude.NewClient(sb, scripted(claudetest.Sequence(
		claudetest.Text("hello"), claudetest.Join(gate.Wait, claudetest.Text("late")), claudetest.Text("back")))).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustResult(t, send(t, s, "x"))
	again := scripted(claudetest.Text("never"))
	again.Resume = s.ID()
	claude.ForgetLocks()
	if _, err := claude.Query(t.Context(), sb, "y", again); !errors.Is(err, claude.ErrSessionInUse) {
		t.Errorf("Query of a conversation that another process has open: %v, want ErrSessionInUse", err)
	}
	send(t, s, "y")
	<-gate.Reached()
	// The CLI dies without having let go of anything.
	if out, err := sb.Command(t.Context(), "sh", "-c", `kill -9 $(ls "$HOME/.claude/vivarium-locks/`+s.ID()+`" | cut -d. -f1)`).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = s.Close()
	claude.ForgetLocks()
	if res := mustResult(t, ask(t, sb, "z", again)); res.Text != "never" {
		t.Errorf("after the owner's death: %q", res.Text)
	}
}

func TestImportRefuses(t *testing.T) {
	sb := realBox(t)
	client := claude.NewClient(sb, nil)
	const id = "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44"
	pack := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 3, Mode: 0o600}
			if strings.HasSuffix(name, "link") {
				h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, "/etc/passwd"
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				_, _ = w.Write([]byte("{}\n"))
			}
		}
		return b.Bytes()
	}
	for name, archive := range map[string][]byte{
		"nothing":         nil,
		"no archive":      []byte(strings.Repeat("x", 2048)),
		"another name":    pack("x.jsonl"),
		"a path":          pack("../" + id + ".jsonl"),
		"a way out":       pack(id+".jsonl", id+"/../../x"),
		"another's files": pack(id+".jsonl", "other/x"),
		"absolute":        pack(id+".jsonl", "/etc/x"),
		"a link":          pack(id+".jsonl", id+"/link"),
		"cut":             pack(id + ".jsonl")[:513],
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := client.ImportSession(t.Context(), bytes.NewReader(archive)); !errors.Is(err, sandbox.ErrInvalid) {
				t.Errorf("ImportSession: %v, want ErrInvalid", err)
			}
		})
	}
	if all, err := client.ListSessions(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("what was refused has left %+v, %v", all, err)
	}
}

// TestRealResumeAt forks a conversation where its first turn ended.
func TestRealResumeAt(t *testing.T) {
	sb := realBox(t)
	opts := scripted(claudetest.Sequence(claudetest.Text("one"), claudetest.Text("two"), claudetest.Text("three")))
	opts.ReplayPrompts = true
	s, err := claude.NewClient(sb, opts).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var prompts, answers []string
	for _, prompt := range []string{"first", "second"} {
		for m, err := range send(t, s, prompt).Messages() {
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *claude.UserMessage:
				prompts = append(prompts, m.UUID())
			case *claude.AssistantMessage:
				answers = append(answers, m.UUID())
			}
		}
	}
	id := s.ID()
	if err := s.Close(); err != nil || len(prompts) != 2 || len(answers) != 2 {
		t.Fatal(err, prompts, answers)
	}
	opts.Resume, opts.Fork, opts.ResumeAt, opts.ResumeDropsTurn = id, true, answers[0], prompts[1]
	if r := mustResult(t, ask(t, sb, "again", opts)); r.Text != "three" {
		t.Errorf("the fork says %q", r.Text)
	}
	opts.ResumeDropsTurn = prompts[0]
	st, err := claude.Query(t.Context(), sb, "again", opts)
	if err == nil {
		_, err = st.Result()
	}
	if err == nil {
		t.Error("it resumed, though it leaves out another turn than was meant")
	}
	t.Log(err)
}
