package broker

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// scanned is the verdict on a body that comes in pieces of a size.
func scanned(body []byte, size int) *refusal {
	var s bodyScanner
	for rest := body; len(rest) > 0; {
		piece := rest[:min(size, len(rest))]
		rest = rest[len(piece):]
		if err := s.write(piece); err != nil {
			return err
		}
	}
	return s.end()
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` {"a":[1,-2.5e3,true,null,"\ud83d\ude00",{}],"b":{"c":""}} `, `{"tools":[{"type":"custom"},{"type":"web_fetch_1"}]}`,
		`{"mcp\u005fservers":[]}`, `{"messages":[{"content":[{"source":{"type":"url"}}]}]}`, `{"a":"` + strings.Repeat("x", 600) + `"}`,
		`{"messages":[{"content":[{"input":{"source":{"type":"url"}}}]}]}`, `{"a":[}`, "{\"\xff\":1}", `{"container":1}`, `{"a":1}}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		bad := scanned(body, max(1, len(body)))
		for _, size := range []int{1, 3} {
			if again := scanned(body, size); (again == nil) != (bad == nil) || bad != nil && *again != *bad {
				t.Errorf("in pieces of %d: %v, at once: %v", size, again, bad)
			}
		}
		object := json.Valid(body) && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
		switch {
		case bad == nil && !object:
			t.Error("what is no JSON object was taken for one")
		case bad == nil:
			wantHarmless(t, body)
		case bad.status == 400 && object && utf8.Valid(body) && len(body) < maxToken:
			t.Errorf("a JSON object was refused: %v", bad)
		}
	})
}

// wantHarmless looks at a body as the standard library reads it.
func wantHarmless(t *testing.T, body []byte) {
	var r struct {
		MCPServers json.RawMessage `json:"mcp_servers"`
		Container  json.RawMessage `json:"container"`
		Messages   []struct {
			Content []struct {
				Source struct {
					Type any `json:"type"`
					URL  any `json:"url"`
				} `json:"source"`
			} `json:"content"`
		} `json:"messages"`
	}
	_ = json.Unmarshal(body, &r) // what has another type stays empty
	if r.MCPServers != nil || r.Container != nil {
		t.Error("it has mcp_servers or a container")
	}
	for _, m := range r.Messages {
		for _, c := range m.Content {
			if text, _ := c.Source.Type.(string); strings.EqualFold(text, "url") || c.Source.URL != nil {
				t.Error("it has a source with a URL")
			}
		}
	}
	var rest struct {
		Tools []struct {
			Type any `json:"type"`
		} `json:"tools"`
	}
	_ = json.Unmarshal(body, &rest)
	for _, tool := range rest.Tools {
		if text, is := tool.Type.(string); tool.Type != nil && (!is || !clientTool.MatchString(text)) {
			t.Errorf("it has a tool of type %v", tool.Type)
		}
	}
}
