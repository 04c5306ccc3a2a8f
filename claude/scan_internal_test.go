package claude

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// oracle reads an envelope with encoding/json.
func oracle(line []byte) (m Message, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil || fields == nil {
		return Message{}, false
	}
	str := func(key string) (s string) {
		if json.Unmarshal(fields[key], &s) != nil {
			return ""
		}
		return s
	}
	m = Message{Type: str("type"), Subtype: str("subtype"), SessionID: str("session_id"), UUID: str("uuid"), ParentToolUseID: str("parent_tool_use_id")}
	return m, m.Type != ""
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"type":"assistant","message":{"content":[{"type":"text","text":"hi"}]},"session_id":"s","uuid":"u","parent_tool_use_id":null}`,
		`{"usage":{"type":"decoy"},"subtype":"success","n":[1,-2.5e+10,0,true,false,null],"type":"result"}`,
		` { "type" : "a\u00e9\n\"" , "type" : "b" , "sub\u0074ype":"x" } `,
		`{"type":3,"uuid":{}}`, `{}`, `[]`, `null`, ``, `{"type":"a"}x`, `{"type":"a",}`, `{"a":01,"type":"x"}`, `{"type":"\ud800"}`,
		"{\"type\":\"a\x01\"}", "{\"type\":\"\xff\xfe\"}", `{"a":1.,"type":"x"}`, `{"a":-,"type":"x"}`, `{"a":1e,"type":"x"}`, `{"a":tru`,
		`{"type":"x","a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		want, ok := oracle(line)
		var s scanner
		s.words = map[string]string{"assistant": "assistant"}
		for range 2 { // the second time with what the first has kept
			got, err := s.scan(line)
			if (err == nil) != ok {
				t.Fatalf("scan(%q): %v, but encoding/json says ok=%v", line, err, ok)
			}
			if !bytes.Equal(got.Raw, line) {
				t.Fatalf("Raw is %q, want the line %q", got.Raw, line)
			}
			got.Raw = nil
			if ok && (got.Type != want.Type || got.Subtype != want.Subtype || got.SessionID != want.SessionID ||
				got.UUID != want.UUID || got.ParentToolUseID != want.ParentToolUseID) {
				t.Fatalf("scan(%q) = %+v, want %+v", line, got, want)
			}
		}
	})
}

func TestScanDepth(t *testing.T) {
	for _, depth := range []int{maxDepth - 1, maxDepth, maxDepth + 1} {
		line := []byte(`{"type":"x","a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`)
		_, want := oracle(line)
		if _, err := new(scanner).scan(line); (err == nil) != want {
			t.Errorf("depth %d: %v, but encoding/json says ok=%v", depth, err, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), false)
	f.Add([]byte(""), true)
	f.Add([]byte("\n\n"), true)
	f.Add(bytes.Repeat([]byte("x"), 3*chunkSize), false)
	f.Fuzz(func(t *testing.T, data []byte, slow bool) {
		var r io.Reader = bytes.NewReader(data)
		if slow {
			r = iotest.OneByteReader(r)
		}
		l := lineReader{r: r}
		var got [][]byte
		for {
			lines, err := l.next()
			got = append(got, lines...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Collect(bytes.Lines(data))
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d bytes became lines %q, want %q", len(data), got, want)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"a"},{"type":"new","text":{"deep":1}}],"usage":{"input_tokens":1}}}`))
	f.Add([]byte(`{"type":"user","message":{"content":"plain"}}`))
	f.Add([]byte(`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}],"is_error":true}]}}`))
	f.Add([]byte(`{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}}`))
	f.Add([]byte(`{"type":"result","errors":[{}],"usage":[],"num_turns":"x","is_error":true}`))
	f.Add([]byte(`{"type":"system","subtype":"init","tools":["Bash"]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := new(scanner).scan(line)
		if err != nil {
			return
		}
		_, _ = m.User()
		_, _ = m.StreamEvent()
		_, _ = m.Init()
		_, _ = m.APIRetry()
		new(words).of(&m)
		if r, err := m.Result(); err == nil {
			_ = r.failure(nil)
		} else if m.Type == TypeResult {
			t.Fatalf("a result cannot be decoded: %v", err)
		}
		if a, err := m.Assistant(); err == nil {
			compare(t, line, a)
			if _, err := json.Marshal(a.Content); err != nil {
				t.Fatalf("the content cannot be encoded again: %v", err)
			}
		}
	})
}

// compare checks an assistant message against encoding/json, where that finds
// the shapes it knows.
func compare(t *testing.T, line []byte, got *AssistantMessage) {
	t.Helper()
	// Maps, because struct fields match names without regard to case.
	var all, message map[string]json.RawMessage
	var blocks []map[string]json.RawMessage
	if json.Unmarshal(line, &all) != nil || json.Unmarshal(all["message"], &message) != nil ||
		json.Unmarshal(message["content"], &blocks) != nil || blocks == nil {
		return
	}
	if len(got.Content) != len(blocks) {
		t.Fatalf("%d blocks, want %d", len(got.Content), len(blocks))
	}
	for i, block := range blocks {
		for key, value := range map[string]string{"type": got.Content[i].Type, "text": got.Content[i].Text, "name": got.Content[i].Name} {
			var want string
			if json.Unmarshal(block[key], &want) == nil && value != want {
				t.Fatalf("%s of block %d is %q, want %q", key, i, value, want)
			}
		}
		if input := block["input"]; len(input) > 0 && string(input) != "null" && !bytes.Equal(bytes.TrimSpace(got.Content[i].Input), bytes.TrimSpace(input)) {
			t.Fatalf("input of block %d is %q, want %q", i, got.Content[i].Input, input)
		}
	}
}
