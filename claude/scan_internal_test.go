package claude

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// oracle reads an envelope with encoding/json.
func oracle(line []byte) (e envelope, uuid string, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil || fields == nil {
		return envelope{}, "", false
	}
	str := func(key string) (s string) {
		if json.Unmarshal(fields[key], &s) != nil {
			return ""
		}
		return s
	}
	e = envelope{typ: str("type"), subtype: str("subtype"), session: str("session_id"), parent: str("parent_tool_use_id")}
	return e, str("uuid"), e.typ != ""
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
		want, uuid, ok := oracle(line)
		var s scanner
		s.words = map[string]string{"assistant": "assistant"}
		for range 2 { // the second time with what the first has kept
			got, err := s.scan(line)
			if (err == nil) != ok {
				t.Fatalf("scan(%q): %v, but encoding/json says ok=%v", line, err, ok)
			}
			if !bytes.Equal(got.Raw(), line) {
				t.Fatalf("Raw is %q, want the line %q", got.Raw(), line)
			}
			if ok && (got.typ != want.typ || got.subtype != want.subtype || got.session != want.session ||
				got.UUID() != uuid || got.parent != want.parent) {
				t.Fatalf("scan(%q) = %+v, want %+v", line, got, want)
			}
		}
	})
}

func TestScanDepth(t *testing.T) {
	for _, depth := range []int{maxDepth - 1, maxDepth, maxDepth + 1} {
		line := []byte(`{"type":"x","a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`)
		_, _, want := oracle(line)
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
	f.Add(append(bytes.Repeat([]byte("x"), 3*longPart), "\ny\n"...), false)
	long := append(bytes.Repeat([]byte("x"), 2*longPart), '\n')
	f.Add(append([]byte("a\nb\n"), bytes.Repeat(append(long, "c\nd\n"...), 3)...), false)
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
	for _, sub := range slices.Sorted(maps.Keys(systemBuilders)) {
		f.Add([]byte(`{"type":"system","subtype":"` + sub + `","tasks":[{"task_id":"t"}],"error":null}`))
	}
	for _, typ := range slices.Sorted(maps.Keys(builders)) {
		f.Add([]byte(`{"type":"` + typ + `","uuid":"u","value":{"condition":"x"}}`))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Decode(line)
		if err != nil {
			if bad := new(ProtocolError); !errors.As(err, &bad) || m != nil {
				t.Fatalf("Decode(%q) = %v, %v", line, m, err)
			}
			return
		}
		if !bytes.Equal(m.Raw(), bytes.TrimSuffix(line, []byte("\n"))) {
			t.Fatalf("Raw is %q, want the line %q", m.Raw(), line)
		}
		if _, err := json.Marshal(m); err != nil {
			t.Fatalf("the message cannot be encoded again: %v", err)
		}
		_ = m.UUID()
		e := readLine(new(scanner), line)
		new(words).of(&e)
		switch m := m.(type) {
		case *ResultMessage:
			_ = m.failure(nil, &Options{})
		case *UserMessage:
			_ = m.Content()
		case *AssistantMessage:
			compare(t, m.Raw(), m.Content())
			if _, err := json.Marshal(m.Content()); err != nil {
				t.Fatalf("the content cannot be encoded again: %v", err)
			}
		}
	})
}

// compare checks an assistant message against encoding/json, where that finds
// the shapes it knows.
func compare(t *testing.T, line []byte, got Content) {
	t.Helper()
	// Maps, because struct fields match names without regard to case.
	var all, message map[string]json.RawMessage
	var blocks []map[string]json.RawMessage
	if json.Unmarshal(line, &all) != nil || json.Unmarshal(all["message"], &message) != nil ||
		json.Unmarshal(message["content"], &blocks) != nil || blocks == nil {
		return
	}
	if len(got) != len(blocks) {
		t.Fatalf("%d blocks, want %d", len(got), len(blocks))
	}
	for i, block := range blocks {
		for key, value := range map[string]string{"type": got[i].Type, "text": got[i].Text, "name": got[i].Name} {
			var want string
			if json.Unmarshal(block[key], &want) == nil && value != want {
				t.Fatalf("%s of block %d is %q, want %q", key, i, value, want)
			}
		}
		if input := block["input"]; len(input) > 0 && string(input) != "null" && !bytes.Equal(bytes.TrimSpace(got[i].Input), bytes.TrimSpace(input)) {
			t.Fatalf("input of block %d is %q, want %q", i, got[i].Input, input)
		}
	}
}
