package mcpserver_test

import (
	"context"
	"fmt"
	"log"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/mcpserver"
	"github.com/vivarium-go/vivarium/sandbox"
)

// A tool of this process, for Claude in a sandbox.
func ExampleNew() {
	type order struct {
		ID int `json:"id" jsonschema:"number of the order"`
	}
	srv := mcp.NewServer(&mcp.Implementation{Name: "shop", Version: "1"}, nil)
	mcp.AddTool(srv, &mcp.Tool{Name: "status", Description: "status of an order"},
		func(_ context.Context, _ *mcp.CallToolRequest, in order) (*mcp.CallToolResult, any, error) {
			text := fmt.Sprintf("order %d is on its way", in.ID) // from a database that the sandbox cannot reach
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
		})

	var sb *sandbox.Sandbox // from a Provider
	st, err := claude.Query(context.Background(), sb, "where is order 7?", &claude.Options{
		MCPServers:   map[string]claude.MCPServer{"shop": mcpserver.New(srv)},
		AllowedTools: []string{"mcp__shop__status"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	res, err := st.Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Text)
}
