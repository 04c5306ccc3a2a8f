package claude_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
)

// echoes answers every request with how many came on its connection, and says hello first.
func echoes(ended chan<- error) claude.MCPHandler {
	return mcpFunc(func(ctx context.Context, conn claude.MCPConn) error {
		if err := conn.Send(ctx, json.RawMessage(`{"jsonrpc":"2.0","method":"notifications/hello"}`)); err != nil {
			return err
		}
		for n := 1; ; n++ {
			message, err := conn.Receive(ctx)
			if err != nil {
				ended <- err
				return err
			}
			var request struct{ ID json.RawMessage }
			if err := json.Unmarshal(message, &request); err != nil {
				return err
			}
			if request.ID == nil {
				continue
			}
			if string(request.ID) == "99" {
				return errors.New("enough")
			}
			if err := conn.Send(ctx, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%d}`, request.ID, n)); err != nil {
				return err
			}
		}
	})
}

func TestInProcessMCP(t *testing.T) {
	ended := make(chan error, 2)
	said := make(chan string, 20)
	st := query(t, &claude.Options{MCPServers: map[string]claude.MCPServer{"m": {InProcess: echoes(ended)}}}, func(c *fakeCLI) {
		id, _ := c.begin()
		tell := func(requestID, message string) {
			c.write(`{"type":"control_request","request_id":%q,"request":{"subtype":"mcp_message","server_name":"m","message":%s}}`+"\n", requestID, message)
			line, _ := json.Marshal(c.read())
			said <- string(line)
		}
		tell("a", `{"jsonrpc":"2.0","id":0,"method":"initialize"}`)
		line, _ := json.Marshal(c.read()) // the hello and the answer, in either order
		said <- string(line)
		tell("b", `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		tell("c", `{"jsonrpc":"2.0","id":"x","method":"tools/list"}`)
		tell("d", `{"jsonrpc":"2.0","id":0,"method":"initialize"}`) // anew
		line, _ = json.Marshal(c.read())
		said <- string(line)
		tell("e", `{"jsonrpc":"2.0","id":99,"method":"tools/call"}`)
		c.result(id, "")
		c.drain()
	})
	if _, err := st.Result(); err != nil {
		t.Fatal(err)
	}
	close(said)
	var all []string
	for line := range said {
		all = append(all, line)
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{
		`{"mcp_response":{"id":0,"jsonrpc":"2.0","result":1}},"subtype":"success"}`, `"notifications/hello"`,
		`"request_id":"b","response":{"mcp_response":{"id":0,"jsonrpc":"2.0","result":{}}}`,
		`"request_id":"c","response":{"mcp_response":{"id":"x","jsonrpc":"2.0","result":3}}`,
		`"request_id":"d","response":{"mcp_response":{"id":0,"jsonrpc":"2.0","result":1}}`,
		`"the server has ended: enough"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the CLI was not sent %s:\n%s", want, text)
		}
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the first connection ended with %v, want io.EOF", err)
	}
}

func TestSchemaFor(t *testing.T) {
	if schema, err := claude.SchemaFor[answer](); err != nil || len(schema.Required) != 2 || schema.Properties["city"].Description != "where it is" {
		t.Errorf("SchemaFor = %+v, %v", schema, err)
	}
	if _, err := claude.SchemaFor[[]string](); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("SchemaFor of a list: %v, want ErrInvalid", err)
	}
	if _, err := claude.DecodeOutput[answer](nil); !errors.Is(err, claude.ErrNoOutput) {
		t.Errorf("DecodeOutput of nothing: %v", err)
	}
	m, err := claude.Decode([]byte(`{"type":"result","structured_output":{"city":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	var bad *claude.ProtocolError
	if _, err := claude.DecodeOutput[answer](m.(*claude.ResultMessage)); !errors.As(err, &bad) {
		t.Errorf("DecodeOutput of another shape: %v, want a *ProtocolError", err)
	}
}

func TestSessionWaitsUntilIdle(t *testing.T) {
	gate := make(chan struct{})
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		id, _ := c.prompt()
		c.write(`{"type":"system","subtype":"session_state_changed","state":"running"}` + "\n")
		c.write(`{"type":"system","subtype":"background_tasks_changed","tasks":[{"task_id":"t"},{"task_id":"w","ambient":true}]}` + "\n")
		c.result(id, "")
		<-gate
		c.write(`{"type":"system","subtype":"background_tasks_changed","tasks":[{"task_id":"w","ambient":true}]}` + "\n")
		c.write(`{"type":"result","subtype":"success","result":"and now","origin":{"kind":"task-notification"}}` + "\n")
		c.write(`{"type":"system","subtype":"session_state_changed","state":"idle"}` + "\n")
		c.drain()
	})
	if _, err := send(t, s, "x").Result(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitIdle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitIdle with a task that goes on: %v", err)
	}
	close(gate)
	if err := s.WaitIdle(t.Context()); err != nil {
		t.Error(err)
	}
}
