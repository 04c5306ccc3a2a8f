// Package mcpserver gives Claude tools that are functions of this process: an
// MCP server made with the official Go SDK, served over the CLI's own standard
// streams. The sandbox needs no network for it, and what the tools use, such as a
// database or a key, stays outside.
//
//	srv := mcp.NewServer(&mcp.Implementation{Name: "weather", Version: "1"}, nil)
//	mcp.AddTool(srv, &mcp.Tool{Name: "today", Description: "today's weather"}, today)
//	opts := &claude.Options{
//		MCPServers:   map[string]claude.MCPServer{"weather": mcpserver.New(srv)},
//		AllowedTools: []string{"mcp__weather__today"},
//	}
//
// A program that does not import this package does not link the SDK.
package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vivarium-go/vivarium/claude"
)

// New is srv for claude.Options.MCPServers, to which limits may be added. It may
// be used by several runs at once; each has a session of its own. The server's
// tools are called for several requests at once, with contexts that end with the
// run. New adds a middleware to srv that makes a panic in a tool an error for Claude.
func New(srv *mcp.Server) claude.MCPServer {
	srv.AddReceivingMiddleware(recovered)
	return claude.MCPServer{InProcess: &handler{srv}}
}

// recovered makes a panic an error: nobody else would catch one in the SDK's goroutines.
func recovered(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, r mcp.Request) (result mcp.Result, err error) {
		defer func() {
			if v := recover(); v != nil {
				result, err = nil, fmt.Errorf("%s panicked: %v", method, v)
			}
		}()
		return next(ctx, method, r)
	}
}

type handler struct{ srv *mcp.Server }

// ServeMCP serves one connection of the CLI.
func (h *handler) ServeMCP(ctx context.Context, conn claude.MCPConn) error {
	session, err := h.srv.Connect(ctx, &transport{conn}, nil)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	err = session.Wait()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// transport is the SDK's view of a connection.
type transport struct{ conn claude.MCPConn }

// Connect is called once.
func (t *transport) Connect(context.Context) (mcp.Connection, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &connection{conn: t.conn, ctx: ctx, cancel: cancel}, nil
}

type connection struct {
	conn   claude.MCPConn
	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	once   sync.Once
}

// Read gives the next message of the CLI.
func (c *connection) Read(ctx context.Context) (jsonrpc.Message, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(io.EOF) })
	defer stop()
	data, err := c.conn.Receive(ctx)
	if err != nil {
		return nil, err
	}
	return jsonrpc.DecodeMessage(data)
}

// Write sends a message to the CLI.
func (c *connection) Write(ctx context.Context, message jsonrpc.Message) error {
	data, err := jsonrpc.EncodeMessage(message)
	if err != nil {
		return err
	}
	return c.conn.Send(ctx, data)
}

// Close ends what Read waits for.
func (c *connection) Close() error {
	c.once.Do(func() { c.cancel(io.EOF) })
	return nil
}

// SessionID is empty: there is one session for each connection.
func (c *connection) SessionID() string { return "" }
