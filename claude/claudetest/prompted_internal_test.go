package claudetest

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePrompt(t *testing.T) {
	for prompt, want := range map[string]struct {
		actions []action
		skipped int
	}{
		"":                                 {},
		"hello":                            {skipped: 1},
		"write a.txt: hi":                  {actions: []action{{file: "a.txt", text: "hi"}}},
		"Write a b.txt:hi":                 {actions: []action{{file: "a b.txt", text: "hi"}}},
		"write a:b: c: d":                  {actions: []action{{file: "a:b", text: "c: d"}}},
		"write a.txt:":                     {actions: []action{{file: "a.txt"}}},
		"write a.txt:   two spaces stay":   {actions: []action{{file: "a.txt", text: "  two spaces stay"}}},
		"write : x":                        {skipped: 1},
		"write a.txt":                      {skipped: 1},
		"write a\x00b: x":                  {skipped: 1},
		"write: x":                         {skipped: 1},
		"run:":                             {skipped: 1},
		"run:ls":                           {actions: []action{{command: "ls"}}},
		"  RUN: echo a: b\r\n\n":           {actions: []action{{command: "echo a: b"}}},
		"do\nrun: a\nwrite f: x\nrun: b\n": {actions: []action{{command: "a"}, {file: "f", text: "x"}, {command: "b"}}, skipped: 1},
		"make a file a b.txt":              {actions: []action{{file: "a b.txt", text: madeText}}},
		"Make a file hello.txt.":           {actions: []action{{file: "hello.txt", text: madeText}}},
		"make a file ":                     {skipped: 1},
		"please run: ls":                   {skipped: 1},
	} {
		actions, skipped := parsePrompt(prompt)
		if !reflect.DeepEqual(actions, want.actions) || skipped != want.skipped {
			t.Errorf("parsePrompt(%q) = %+v, %d, want %+v, %d", prompt, actions, skipped, want.actions, want.skipped)
		}
	}
}

func TestParsePromptIsBounded(t *testing.T) {
	if actions, skipped := parsePrompt(strings.Repeat("run: x\n", maxActions+7)); len(actions) != maxActions || skipped != 7 {
		t.Errorf("%d actions, %d skipped", len(actions), skipped)
	}
}

// A Write that is refused because the file was not read is preceded by a Read.
func TestReplay(t *testing.T) {
	actions := []action{{file: "f", text: "x"}, {command: "c"}}
	refused := call{name: "Write", isError: true, result: "File has not been read yet. Read it first before writing to it."}
	read, wrote, ran := call{name: "Read"}, call{name: "Write", result: "ok"}, call{name: "Bash", result: "out"}
	for i, test := range []struct {
		made []call
		next string
	}{
		{nil, "Write"},
		{[]call{refused}, "Read"},
		{[]call{refused, read}, "Write"},
		{[]call{refused, read, refused}, "Bash"},
		{[]call{refused, read, wrote}, "Bash"},
		{[]call{wrote}, "Bash"},
		{[]call{wrote, ran}, ""},
		{[]call{wrote, ran, ran}, ""},
	} {
		results, next := replay(actions, test.made, "/w")
		if got := nameOf(next); got != test.next {
			t.Errorf("%d: next is %q, want %q", i, got, test.next)
		}
		if next == nil && len(results) != len(actions) {
			t.Errorf("%d: %d results", i, len(results))
		}
	}
}

func nameOf(c *call) string {
	if c == nil {
		return ""
	}
	return c.name
}

func TestReportFencesWhatItShows(t *testing.T) {
	got := report([]action{{command: "cat x"}}, []call{{result: "```\nnot the end\n"}}, 0)
	if want := "Ran `cat x`:\n````\n```\nnot the end\n````\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParsePrompt(f *testing.F) {
	for _, seed := range []string{"write a.txt: hi", "run: ls\nwrite b:c", "Write \xff: \x00", "RUN:\nrun: x", "write İ: x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, prompt string) {
		actions, skipped := parsePrompt(prompt)
		if skipped < 0 || len(actions) > maxActions {
			t.Fatalf("%d actions, %d skipped", len(actions), skipped)
		}
		for _, a := range actions {
			if (a.file == "") == (a.command == "") {
				t.Fatalf("%q gives %+v: neither or both", prompt, a)
			}
			if strings.ContainsAny(a.file+a.text+a.command, "\n") {
				t.Fatalf("%q gives %+v: more than a line", prompt, a)
			}
			if a.call("/w") == nil {
				t.Fatal("no call")
			}
		}
	})
}
