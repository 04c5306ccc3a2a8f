package claude

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

const noteForm = `{"conversation":"3f0e8f5e-0f0f-4f0f-8f0f-0123456789ab","prompt_id":"3f0e8f5e-0f0f-4f0f-8f0f-0123456789ac","prompt":"{}\n"}`

// FuzzRecall reads what a sandbox says that a CLI was told, and the note of its run.
func FuzzRecall(f *testing.F) {
	f.Add([]byte(`{"type":"control_request","request_id":"vivarium-1","request":{"subtype":"initialize"}}`+"\n"+
		`{"type":"user","uuid":"3f0e8f5e-0f0f-4f0f-8f0f-0123456789ac"}`+"\n"+
		`{"type":"control_response","response":{"request_id":"x"}}`+"\n"), []byte(noteForm))
	f.Add([]byte("\n{\n\x00"), []byte("{}"))
	f.Fuzz(func(t *testing.T, input, note []byte) {
		p := &process{replies: map[string]chan reply{}}
		p.job = newJobRun(context.Background(), p)
		told := p.job.recall(input, "3f0e8f5e-0f0f-4f0f-8f0f-0123456789ac")
		p.release[0]()
		if told && !strings.Contains(string(input), "user") {
			t.Error("it was told the prompt by nothing")
		}
		n, err := parseNote(note)
		if err != nil && !errors.Is(err, sandbox.ErrInvalid) {
			t.Error(err)
		}
		if err == nil && (strings.ContainsAny(n.Conversation, "/.\n") || n.Prompt != "" && strings.Count(n.Prompt, "\n") != 1) {
			t.Errorf("it was taken: %+v", n)
		}
	})
}

func TestRecall(t *testing.T) {
	n, err := parseNote([]byte(noteForm))
	if err != nil {
		t.Fatal(err)
	}
	for input, want := range map[string]struct {
		told    bool
		putOff  string
		initID  string
		lastReq int
		settled int
	}{
		"": {},
		`{"type":"control_request","request_id":"vivarium-1","request":{"subtype":"initialize"}}` + "\n": {initID: "vivarium-1", lastReq: 1},
		`{"type":"user","uuid":"another"}` + "\n":                                                        {},
		`{"type":"user","uuid":"` + n.PromptID + `"}` + "\n" + `{"type":"control_response","response":{"request_id":"q"}}` + "\n" + `{"type":"control_request","request_id":"vivarium-2"}` + "\n": {told: true, lastReq: 2, settled: 1},
		`{"type":"control_response","response":{"request_id":"q","response":{"hookSpecificOutput":{"permissionDecision":"defer"}}}}` + "\n":                                                       {putOff: "q", settled: 1},
	} {
		p := &process{replies: map[string]chan reply{}}
		p.job = newJobRun(t.Context(), p)
		told := p.job.recall([]byte(input), n.PromptID)
		p.release[0]()
		if told != want.told || p.putOffUse != want.putOff || p.job.initID != want.initID || p.lastReq != want.lastReq || len(p.settled) != want.settled {
			t.Errorf("%s: told %v, first request %q, %d requests, %d answers", input, told, p.job.initID, p.lastReq, len(p.settled))
		}
	}
	if n, err := parseNote([]byte(strings.Replace(noteForm, `{}\n`, "", 1))); err != nil || n.Prompt != "" {
		t.Errorf("without a prompt: %+v, %v", n, err)
	}
	for _, bad := range []string{"", "null", "[]", `{}`, strings.Replace(noteForm, "-0f0f-", "-../-", 1), strings.Replace(noteForm, `{}\n`, `{}\n{}\n`, 1), strings.Replace(noteForm, `{}\n`, `{}`, 1)} {
		if _, err := parseNote([]byte(bad)); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
