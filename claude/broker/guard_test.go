package broker_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/broker"
)

// fine are bodies that the model is asked with.
var fine = map[string]string{
	"nothing":           `{}`,
	"a prompt":          ` {"model":"m","max_tokens":-1.5e3,"stream":true,"stop":null,"messages":[{"role":"user","content":"mcp_servers \"type\":\"url\" \u00fc \ud800"}]} ` + "\r\n",
	"tools":             `{"tools":[{"name":"Bash","input_schema":{"type":"object","properties":{"mcp_servers":{"type":"array"},"source":{"type":"url"}}}},{"type":null,"name":"x"}]}`,
	"custom":            `{"tools":[{"type":"custom","name":"x","cache_control":{"type":"ephemeral"}}]}`,
	"tools of clients":  `{"tools":[{"type":"bash_20250124"},{"type":"text_editor_20250728"},{"type":"computer_20250124"},{"type":"memory_20250818"}]}`,
	"no tools":          `{"tools":[],"tool_choice":{"type":"auto"},"metadata":{"user_id":"u"}}`,
	"an image":          `{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}]}]}`,
	"a source in words": `{"messages":[{"content":[{"type":"search_result","source":"https://example.com","url":"https://example.com"}]}]}`,
	"a call of a tool":  `{"messages":[{"content":[{"type":"tool_use","input":{"source":{"type":"url","url":"x"},"tools":[{"type":"web"}],"mcp_servers":[]}}]}]}`,
	"deep below":        `{"metadata":{"mcp_servers":[],"container":"c","tools":[{"type":"web_fetch_20250910"}]}}`,
}

// reaching are bodies that make the API go out.
var reaching = map[string]string{
	"web_search":            `{"tools":[{"type":"web_search_20250305","name":"web_search"}]}`,
	"web_fetch":             `{"tools":[{"name":"x"},{"name":"web_fetch","type":"web_fetch_20250910"}]}`,
	"code_execution":        `{"tools":[{"type":"code_execution_20250825"}]}`,
	"bash at the API":       `{"tools":[{"type":"bash_code_execution_20250825"}]}`,
	"a toolset of MCP":      `{"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}`,
	"a type to come":        `{"tools":[{"type":"teleport"}]}`,
	"a type with an escape": `{"tools":[{"type":"web_\u0073earch_20250305"}]}`,
	"in the last of two":    `{"tools":[{"type":"custom","type":"web_search_20250305"}]}`,
	"in the first of two":   `{"tools":[{"type":"web_search_20250305","type":"custom"}]}`,
	"the first tools":       `{"tools":[{"type":"web_search_20250305"}],"tools":[]}`,
	"Type":                  `{"tools":[{"Type":"web_search_20250305"}]}`,
	"TOOLS":                 `{"TOOLS":[{"type":"web_search_20250305"}]}`,
	"escaped tools":         `{"\u0074ool\u0073":[{"typ\u0065":"web_search_20250305"}]}`,
	"long s":                `{"toolſ":[{"type":"web_search_20250305"}]}`,
	"tools as an object":    `{"tools":{"type":"web_search_20250305"}}`,
	"tools in a list":       `{"tools":[[{"type":"web_search_20250305"}]]}`,
	"a list as type":        `{"tools":[{"type":["web_search_20250305"]}]}`,
	"a number as type":      `{"tools":[{"type":1}]}`,
	"a long type":           `{"tools":[{"type":"custom` + strings.Repeat("x", 4096) + `"}]}`,
	"mcp_servers":           `{"mcp_servers":[{"type":"url","url":"https://example.com"}]}`,
	"mcp_servers, null":     `{"mcp_servers":null}`,
	"mcpServers":            `{"mcpServers":[]}`,
	"MCP_SERVERS":           `{"model":"m","MCP_SERVERS":[]}`,
	"escaped mcp_servers":   `{"\u006d\u0063\u0070\u005f\u0073\u0065\u0072\u0076\u0065\u0072\u0073":[]}`,
	"container":             `{"container":{"skills":[]}}`,
	"an image":              `{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://example.com/?q=data"}}]}]}`,
	"an image, the URL":     `{"messages":[{"content":[{"type":"image","source":{"url":"https://example.com/?q=data"}}]}]}`,
	"an image, duplicate":   `{"messages":[{"content":[{"type":"image","source":{"type":"url","type":"base64"}}]}]}`,
	"an image, Source":      `{"messages":[{"content":[{"type":"image","Source":{"TYPE":"\u0055RL"}}]}]}`,
	"an image, Input":       `{"messages":[{"content":[{"Input":{"source":{"type":"url"}}}]}]}`,
	"in a document":         `{"messages":[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url"}}]}}]}]}`,
	"in a tool's result":    `{"messages":[{"content":[{"type":"tool_result","content":[{"type":"document","source":{"type":"url"}}]}]}]}`,
	"in the system prompt":  `{"system":[{"type":"document","source":{"type":"url"}}]}`,
}

// unread are bodies that not everybody reads alike, or nobody.
var unread = map[string]string{
	"nothing":           ``,
	"space":             ` `,
	"a list":            `[{"mcp_servers":[]}]`,
	"a string":          `"x"`,
	"cut":               `{"model":"m"`,
	"cut in a string":   `{"model":"m`,
	"two":               `{}{"mcp_servers":[]}`,
	"something after":   `{} x`,
	"a byte order mark": "\ufeff{}",
	"UTF-16":            "{\x00}\x00",
	"a comment":         `{/* */}`,
	"a comma too many":  `{"a":1,}`,
	"a comma in a list": `{"a":[1,]}`,
	"a comma first":     `{,"a":1}`,
	"no comma":          `{"a":1 "b":2}`,
	"no colon":          `{"a" 1}`,
	"no value":          `{"a":}`,
	"other quotes":      `{'a':1}`,
	"no quotes":         `{a:1}`,
	"NaN":               `{"a":NaN}`,
	"a bad number":      `{"a":01}`,
	"a long number":     `{"a":` + strings.Repeat("1", 4096) + `}`,
	"a bad escape":      `{"a":"\x41"}`,
	"a short escape":    `{"\u00":1}`,
	"a newline":         "{\"a\":\"\n\"}",
	"a zero":            "{\"a\":\"\x00\"}",
	"not UTF-8":         "{\"mcp_\xc1\xb3ervers\":1}",
	"crossed":           `{"a":[}]`,
	"too deep":          `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
}

func TestWhatMayNotReachOut(t *testing.T) {
	w := newWorld(t, echo, broker.Options{})
	for what, group := range map[string]struct {
		bodies  map[string]string
		status  int
		errType string
	}{
		"fine": {fine, 200, ""}, "reaching": {reaching, 403, "permission_error"}, "unread": {unread, 400, "invalid_request_error"},
	} {
		for name, body := range group.bodies {
			for _, path := range []string{"/v1/messages?beta=true", "/v1/messages/count_tokens"} {
				t.Run(what+"/"+name, func(t *testing.T) {
					resp, got := w.do(t, http.MethodPost, path, body, "Content-Type", "application/json; charset=utf-7")
					if group.status != http.StatusOK {
						wantError(t, resp, got, group.status, group.errType)
					} else if resp.StatusCode != http.StatusOK || got != body {
						t.Errorf("got %d %s", resp.StatusCode, got)
					}
					if group.status == http.StatusForbidden && !strings.Contains(got, "AllowServerTools") {
						t.Errorf("%s names no remedy", got)
					}
				})
			}
		}
	}
	for _, r := range w.reached() {
		if got := r.Header.Get("Content-Type"); got != "application/json" {
			t.Fatalf("the upstream was told it is %s", got)
		}
	}
	if !strings.Contains(w.log.String(), "status=403") {
		t.Error("the log does not tell of refusals")
	}
}

// The upstream never has the whole of a body that is refused, in whatever pieces
// it came.
func TestARefusedBodyIsNeverWhole(t *testing.T) {
	whole := make(chan string, 1)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			whole <- string(body)
		}
	}, broker.Options{})
	body := `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 1<<20) + `"}],"tools":[{"type":"web_fetch_20250910"}]}`
	for _, known := range []bool{true, false} {
		var reader io.Reader = strings.NewReader(body)
		if !known {
			reader = io.MultiReader(reader)
		}
		resp, err := noRedirects.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", reader))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, resp, string(got), 403, "permission_error")
	}
	select {
	case body := <-whole:
		t.Errorf("the upstream got %d bytes as a whole body", len(body))
	default:
	}
}

func TestNoBodyInAnEncoding(t *testing.T) {
	w := newWorld(t, echo, broker.Options{})
	resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}", "Content-Encoding", "gzip")
	wantError(t, resp, body, 400, "invalid_request_error")
	if n := len(w.reached()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestAllowServerTools(t *testing.T) {
	w := newWorld(t, echo, broker.Options{AllowServerTools: true})
	for name, body := range reaching {
		if resp, got := w.do(t, http.MethodPost, "/v1/messages", body); resp.StatusCode != http.StatusOK || got != body {
			t.Errorf("%s: got %d %s", name, resp.StatusCode, got)
		}
	}
}
