package dockerfile_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage/dockerfile"
)

func parse(t *testing.T, text string) []dockerfile.Command {
	t.Helper()
	list, err := dockerfile.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParse(t *testing.T) {
	list := parse(t, strings.Join([]string{
		"# a comment", "", "from debian:12 as build", "RUN apt-get update && \\", "  # not part of it", "",
		"    apt-get install -y \\  ", "    jq", "COPY --from=build --chown=1:2 [\"a b\", \"/c\"]", "CMD [not json]", "RUN echo \\# no comment",
	}, "\r\n"))
	want := []string{"FROM debian:12 as build", "RUN apt-get update &&     apt-get install -y     jq",
		"COPY --from=build --chown=1:2 [\"a b\", \"/c\"]", "CMD [not json]", `RUN echo \# no comment`}
	if len(list) != len(want) {
		t.Fatalf("%d commands", len(list))
	}
	for i, c := range list {
		if c.String() != want[i] {
			t.Errorf("%q, want %q", c.String(), want[i])
		}
	}
	if c := list[1]; c.Line != 4 {
		t.Errorf("RUN is in line %d", c.Line)
	}
	if c := list[2]; !slices.Equal(c.JSON, []string{"a b", "/c"}) {
		t.Errorf("JSON %q", c.JSON)
	}
	if v, ok := list[2].Flag("chown"); !ok || v != "1:2" {
		t.Errorf("--chown is %q", v)
	}
	if list[3].JSON != nil {
		t.Errorf("CMD [not json] became %q", list[3].JSON)
	}
}

func TestParseEscapeDirective(t *testing.T) {
	list := parse(t, "# syntax=docker/dockerfile:1\n# escape=`\nRUN a `\n  b\nENV P=C:\\x\n")
	if got := list[0].Rest; got != "a   b" {
		t.Errorf("%q", got)
	}
	pairs, err := list[1].Pairs(nil)
	if err != nil || pairs[0] != [2]string{"P", `C:\x`} {
		t.Errorf("%q, %v", pairs, err)
	}
}

func TestParseHeredocs(t *testing.T) {
	list := parse(t, "RUN <<EOF\necho 1\n# not a comment\\\n\necho 2\nEOF\nRUN cat <<-'A' <<B > /x\n\t\tin a\n\tA\nin $b\nB\nRUN x=$((1<<2)) true <<< word")
	if h := list[0].Heredocs; len(h) != 1 || h[0].Text != "echo 1\n# not a comment\\\n\necho 2\n" {
		t.Errorf("%+v", h)
	}
	h := list[1].Heredocs
	if len(h) != 2 || h[0].Text != "in a\n" || !h[0].Quoted || !h[0].Tabs || h[1].Text != "in $b\n" || h[1].Quoted {
		t.Errorf("%+v", h)
	}
	if len(list[2].Heredocs) != 0 {
		t.Errorf("%+v", list[2].Heredocs)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"HELLO world":        `line 1: "HELLO"`,
		"RUN true\n\nENV":    "line 3: ENV needs",
		"RUN <<EOF\ntrue\n":  `line "EOF"`,
		"COPY --=x a b":      "not an option",
		"apt-get install jq": "is not a command",
	} {
		_, err := dockerfile.Parse(text)
		if !errors.Is(err, dockerfile.ErrSyntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func lookup(name string) (string, bool) {
	v, ok := map[string]string{"A": "one", "EMPTY": "", "P": "/usr/lib/x.tar.gz", "B": "$A"}[name]
	return v, ok
}

func TestExpand(t *testing.T) {
	var c dockerfile.Command
	for in, want := range map[string]string{
		`$A`: "one", `${A}`: "one", `x$A.y`: "xone.y", `$NONE`: "", `$`: "$", `a$`: "a$", `$A$A`: "oneone", `$B`: "$A",
		`\$A`: "$A", `'$A'`: "$A", `"$A"`: "one", `"\$A \n \"q\""`: `$A \n "q"`, `a\ b`: "a b", `"a 'b'"`: "a 'b'",
		`${A:-d}`: "one", `${NONE:-d}`: "d", `${EMPTY:-d}`: "d", `${EMPTY-d}`: "", `${NONE-d}`: "d",
		`${A:+d}`: "d", `${NONE:+d}`: "", `${EMPTY:+d}`: "", `${EMPTY+d}`: "d", `${NONE:-${A}}`: "one", `${NONE:-a b}`: "a b",
		`${NONE:-"}"}`: "}", `${A:?no}`: "one", `${P#*/}`: "usr/lib/x.tar.gz", `${P##*/}`: "x.tar.gz",
		`${P%.*}`: "/usr/lib/x.tar", `${P%%.*}`: "/usr/lib/x", `${A/n/N}`: "oNe", `${A/n}`: "oe", `${P//\//_}`: "_usr_lib_x.tar.gz", `${P/?/}`: "usr/lib/x.tar.gz",
	} {
		got, err := c.Expand(in, lookup)
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`'a`, `"a`, `${A`, `${`, `${A!x}`, `${NONE:?must be set}`, strings.Repeat("${X:-", 100) + strings.Repeat("}", 100)} {
		if got, err := c.Expand(in, lookup); !errors.Is(err, dockerfile.ErrSyntax) {
			t.Errorf("%s gives %q, %v", in, got, err)
		}
	}
}

func TestExpandText(t *testing.T) {
	var c dockerfile.Command
	got, err := c.ExpandText("it's $A \"x\" \\$A \\n\n", lookup)
	if want := "it's one \"x\" $A \\n\n"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestPairs(t *testing.T) {
	for in, want := range map[string][][2]string{
		`ENV A=1 B="two words" C=a\ b D='$A' E=$A`: {{"A", "1"}, {"B", "two words"}, {"C", "a b"}, {"D", "$A"}, {"E", "one"}},
		`ENV A the rest  of "it"`:                  {{"A", "the rest  of it"}},
		`LABEL "com.example x"="y"`:                {{"com.example x", "y"}},
		`ENV A=`:                                   {{"A", ""}},
	} {
		got, err := parse(t, in)[0].Pairs(lookup)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s gives %q, %v", in, got, err)
		}
	}
	for _, in := range []string{`ENV A`, `ENV A=1 B`, `ENV =x`, `ENV A="x`} {
		if got, err := parse(t, in)[0].Pairs(lookup); !errors.Is(err, dockerfile.ErrSyntax) {
			t.Errorf("%s gives %q, %v", in, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"FROM a\nRUN b \\\n c", "RUN <<A\nx\nA", "ENV A=${B:-\"c\"} D='e'", "COPY --from=x [\"a\",\"b\"]", "# escape=`\nRUN x `\n y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := dockerfile.Parse(text)
		if err != nil && !errors.Is(err, dockerfile.ErrSyntax) {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.Name == "" || c.Rest == "" || c.Line < 1 {
				t.Fatalf("%+v", c)
			}
			_, _ = c.Words(lookup)
			_, _ = c.Pairs(lookup)
			plain, err := c.Expand(c.Rest, lookup)
			if err == nil && !strings.ContainsAny(c.Rest, "$'\"`\\") && plain != c.Rest {
				t.Fatalf("%q became %q", c.Rest, plain)
			}
		}
	})
}
