package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

func replace(t *testing.T, s sandboxhttp.Store) {
	rec := box("acme", "sb", 0)
	rec.Version, rec.Tags = &sandboxhttp.Version{ID: "v1", Conflict: true}, map[string]string{"old": "1"}
	save(t, s, rec, box("acme", "other", 1))
	saveRuns(t, s, run("acme", "sb", "run", 0), run("acme", "sb", "other", 1))

	now := box("acme", "sb", 2)
	now.State, now.Tags = sandboxhttp.StateEnded, map[string]string{"new": "2"}
	save(t, s, now)
	wantSandbox(t, s, now)
	wantSandbox(t, s, box("acme", "other", 1))
	wantIDs(t, s, "acme", sandboxhttp.Query{}, "sb", "other")
	wantIDs(t, s, "acme", sandboxhttp.Query{State: sandboxhttp.StateRunning}, "other")
	wantRuns(t, s, "acme", "sb", "run", "other") // replacing the sandbox left them

	ended := run("acme", "sb", "run", 2)
	ended.State, ended.End, ended.Events = sandboxhttp.StateEnded, "completed", 7
	saveRuns(t, s, ended)
	wantRun(t, s, ended)
	wantRuns(t, s, "acme", "sb", "other", "run")
}

// accounts: the same ids in two accounts are two records each, and every method sees
// its own account's only.
func accounts(t *testing.T, s sandboxhttp.Store) {
	for i, account := range []string{"acme", "globex"} {
		rec := box(account, "sb", i)
		rec.Name = account
		save(t, s, rec)
		r := run(account, "sb", "run", i)
		r.Prompt = account
		saveRuns(t, s, r)
	}
	stranger := run("initech", "sb", "run", 0)
	is(t, "SaveRun of an account without the sandbox", s.SaveRun(t.Context(), stranger), sandboxhttp.ErrNotFound)
	wantAbsent(t, s, "initech")
	for name, call := range calls("initech") {
		if strings.HasPrefix(name, "Delete") {
			is(t, name+" of another account's", call(t.Context(), s), nil)
		}
	}
	theirs := box("globex", "sb", 1)
	theirs.Name = "globex"
	theirRun := run("globex", "sb", "run", 1)
	theirRun.Prompt = "globex"
	check := func() {
		t.Helper()
		wantSandbox(t, s, theirs)
		wantRun(t, s, theirRun)
		wantIDs(t, s, "globex", sandboxhttp.Query{}, "sb")
		wantRuns(t, s, "globex", "sb", "run")
	}
	check()
	is(t, "DeleteRun", s.DeleteRun(t.Context(), "acme", "sb", "run"), nil)
	check()
	is(t, "DeleteSandbox", s.DeleteSandbox(t.Context(), "acme", "sb"), nil)
	check()
	wantAbsent(t, s, "acme")
}

// wantAbsent wants an account to have no records, "sb" and "run" among them.
func wantAbsent(t *testing.T, s sandboxhttp.Store, account string) {
	t.Helper()
	for _, name := range []string{"Sandbox", "Run", "Runs"} {
		is(t, name+" of "+account, calls(account)[name](t.Context(), s), sandboxhttp.ErrNotFound)
	}
	wantIDs(t, s, account, sandboxhttp.Query{})
}

func absent(t *testing.T, s sandboxhttp.Store) {
	wantAbsent(t, s, "acme")
	for _, name := range []string{"DeleteSandbox", "DeleteRun"} {
		is(t, name+" of nothing", calls("acme")[name](t.Context(), s), nil)
	}
	is(t, "SaveRun without a sandbox", s.SaveRun(t.Context(), run("acme", "sb", "run", 0)), sandboxhttp.ErrNotFound)
	wantAbsent(t, s, "acme")
	save(t, s, box("acme", "sb", 0))
	_, err := s.Run(t.Context(), "acme", "sb", "run")
	is(t, "Run of a sandbox that has none", err, sandboxhttp.ErrNotFound)
	wantRuns(t, s, "acme", "sb")
	is(t, "DeleteRun of a sandbox that has none", s.DeleteRun(t.Context(), "acme", "sb", "run"), nil)
}

// ownRecords changes what was given and what was returned, which must not change
// what is stored.
func ownRecords(t *testing.T, s sandboxhttp.Store) {
	want := func() *sandboxhttp.Sandbox {
		rec := box("acme", "sb", 0)
		rec.Name, rec.Version = "name", &sandboxhttp.Version{ID: "v1"}
		rec.Tags, rec.Ports, rec.Unenforced = map[string]string{"k": "v"}, map[string]string{"80": "a"}, map[string]string{"CPU": "why"}
		return rec
	}
	spoil := func(rec *sandboxhttp.Sandbox) {
		rec.Name, rec.Version.ID = "spoiled", "spoiled"
		rec.Tags["k"], rec.Ports["80"], rec.Unenforced["CPU"] = "spoiled", "spoiled", "spoiled"
	}
	given := want()
	save(t, s, given)
	spoil(given)
	wantSandbox(t, s, want())
	got, err := s.Sandbox(t.Context(), "acme", "sb")
	if err != nil {
		t.Fatal(err)
	}
	spoil(got)
	wantSandbox(t, s, want())
	spoil(wantIDs(t, s, "acme", sandboxhttp.Query{}, "sb")[0])
	wantSandbox(t, s, want())

	r := run("acme", "sb", "run", 0)
	saveRuns(t, s, r)
	r.Prompt = "spoiled"
	got2, err := s.Run(t.Context(), "acme", "sb", "run")
	if err != nil {
		t.Fatal(err)
	}
	got2.Prompt = "spoiled"
	list, err := s.Runs(t.Context(), "acme", "sb")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	list[0].Prompt = "spoiled"
	wantRun(t, s, run("acme", "sb", "run", 0))
}

// cascade: with a sandbox go its runs, which do not come back with another of its id.
func cascade(t *testing.T, s sandboxhttp.Store) {
	save(t, s, box("acme", "sb", 0), box("acme", "other", 1))
	saveRuns(t, s, run("acme", "sb", "one", 0), run("acme", "sb", "two", 1), run("acme", "other", "one", 0))
	is(t, "DeleteRun", s.DeleteRun(t.Context(), "acme", "sb", "one"), nil)
	wantRuns(t, s, "acme", "sb", "two")
	for range 2 {
		is(t, "DeleteSandbox", s.DeleteSandbox(t.Context(), "acme", "sb"), nil)
	}
	_, err := s.Run(t.Context(), "acme", "sb", "two")
	is(t, "Run of a sandbox that was deleted", err, sandboxhttp.ErrNotFound)
	_, err = s.Runs(t.Context(), "acme", "sb")
	is(t, "Runs of a sandbox that was deleted", err, sandboxhttp.ErrNotFound)
	is(t, "SaveRun in a sandbox that was deleted", s.SaveRun(t.Context(), run("acme", "sb", "three", 0)), sandboxhttp.ErrNotFound)
	wantRuns(t, s, "acme", "other", "one")
	save(t, s, box("acme", "sb", 2))
	wantRuns(t, s, "acme", "sb")
}

var odd = []string{
	"\x00", "a\x00b", "line\r\nline\u2028line\u2029", "'; DROP TABLE runs; --", `"\"\\u0000\\`, "%s ? $1 :name @p",
	"\ufeff\ufffd\U0010FFFF", "e\u0301 \u00e9 \u202eright to left", "\x01\x1f\x7f\u0080", "<script>&amp;</script>", "   ", "null",
}

// oddTexts: texts of users and of Claude, with characters that databases, SQL or JSON
// treat in their own way, come back as they were.
func oddTexts(t *testing.T, s sandboxhttp.Store) {
	for i, text := range odd {
		rec := box("acme", fmt.Sprint("sb-", i), i)
		rec.Name, rec.VolumeName, rec.Head, rec.ProviderID = text, text, text, text
		rec.Tags = map[string]string{text: text, "": "", "empty": ""}
		rec.Unenforced, rec.Version = map[string]string{"CPU": text}, &sandboxhttp.Version{ID: text}
		save(t, s, rec)
		wantSandbox(t, s, rec)
		r := run("acme", rec.ID, "run", 0)
		r.Prompt, r.Error, r.SessionID = text, text, text
		saveRuns(t, s, r)
		wantRun(t, s, r)
	}
}

// oddIDs: ids come from the paths of requests, and accounts from whoever logs people
// in. One that is no text at all is not found, or is kept; it is never an error.
func oddIDs(t *testing.T, s sandboxhttp.Store) {
	for _, id := range append([]string{"", "\xff\xfe", "SB", "sb ", "sb\x00", "ａ", strings.Repeat("x", 4<<10)}, odd...) {
		_, err := s.Sandbox(t.Context(), "acme", id)
		is(t, fmt.Sprintf("Sandbox(%.20q)", id), err, sandboxhttp.ErrNotFound)
		_, err = s.Sandbox(t.Context(), id, "sb")
		is(t, fmt.Sprintf("Sandbox of account %.20q", id), err, sandboxhttp.ErrNotFound)
		_, err = s.Run(t.Context(), "acme", id, id)
		is(t, fmt.Sprintf("Run(%.20q)", id), err, sandboxhttp.ErrNotFound)
		is(t, fmt.Sprintf("DeleteSandbox(%.20q)", id), s.DeleteSandbox(t.Context(), "acme", id), nil)
		wantIDs(t, s, id, sandboxhttp.Query{})
	}
	save(t, s, box("acme", "sb", 0), box("Acme", "sb", 0), box("acme ", "sb", 0), box("acme", "SB", 0), box("acme", "sb\x00", 0), box("\xff", "sb", 0))
	for account, want := range map[string][]string{"acme": {"sb\x00", "sb", "SB"}, "Acme": {"sb"}, "acme ": {"sb"}, "\xff": {"sb"}, "acm": nil} {
		wantIDs(t, s, account, sandboxhttp.Query{}, want...)
	}
}

// longTexts: a body of 1 MiB is what a server takes by default.
func longTexts(t *testing.T, s sandboxhttp.Store) {
	save(t, s, box("acme", "sb", 0))
	r := run("acme", "sb", "run", 0)
	const line = "a line of a long prompt, with \x00, \U0001F600 and <tags>\n"
	r.Prompt = strings.Repeat(line, 1<<20/len(line))
	saveRuns(t, s, r)
	wantRun(t, s, r)
}

// endedContexts: no method works on for somebody who is gone, or forgets to say why.
func endedContexts(t *testing.T, s sandboxhttp.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), start.AddDate(-10, 0, 0))
	defer stop()
	for name, call := range calls("acme") {
		is(t, name, call(ctx, s), context.Canceled)
		is(t, name, call(late, s), context.DeadlineExceeded)
	}
	wantAbsent(t, s, "acme")
	save(t, s, box("acme", "sb", 0))
	saveRuns(t, s, run("acme", "sb", "run", 0))
	for name, call := range calls("acme") {
		is(t, name, call(ctx, s), context.Canceled)
	}
	wantSandbox(t, s, box("acme", "sb", 0))
	wantRun(t, s, run("acme", "sb", "run", 0))
}
