package claude

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// Types of content blocks, as ContentBlock.Type has them. The API has others
// and comes to have more; they are kept whole in ContentBlock.Raw.
// https://docs.anthropic.com/en/api/messages
const (
	BlockText             = "text"
	BlockThinking         = "thinking"
	BlockRedactedThinking = "redacted_thinking"
	BlockToolUse          = "tool_use"
	BlockToolResult       = "tool_result"
	BlockImage            = "image"
	BlockDocument         = "document"
	BlockServerToolUse    = "server_tool_use"
	BlockMCPToolUse       = "mcp_tool_use"
	BlockMCPToolResult    = "mcp_tool_result"
	BlockWebSearchResult  = "web_search_tool_result"
)

// ContentBlock is a part of a message: text, thinking, an image, the use of a
// tool or its result. Which fields are set depends on Type. Text, Image,
// Document and their kin make those that a prompt can have.
type ContentBlock struct {
	// Type says what it is, such as BlockText.
	Type string `json:"type"`
	// Text is the text of a BlockText.
	Text string `json:"text,omitempty"`
	// Thinking is the text of a BlockThinking; Signature proves to the API that
	// the model wrote it. Data is a BlockRedactedThinking, which only the API
	// can read.
	Thinking  string `json:"thinking,omitempty"`
	Signature string `json:"signature,omitempty"`
	Data      string `json:"data,omitempty"`
	// ID, Name and Input are those of a BlockToolUse, a BlockServerToolUse, which
	// the API runs itself, and a BlockMCPToolUse, of which ServerName is the server.
	ID         string          `json:"id,omitempty"`
	Name       string          `json:"name,omitempty"`
	ServerName string          `json:"server_name,omitempty"`
	Input      json.RawMessage `json:"input,omitempty"`
	// ToolUseID is the ID of the use that a BlockToolResult, or another of the
	// "…_tool_result" types, answers, Content what the tool gave, and IsError says
	// that it failed. Where the content is not a list of blocks, only Raw has it.
	ToolUseID string  `json:"tool_use_id,omitempty"`
	Content   Content `json:"content,omitempty"`
	IsError   bool    `json:"is_error,omitempty"`
	// Source is the bytes of a BlockImage or a BlockDocument, or where they are.
	Source *Source `json:"source,omitempty"`
	// Title is that of a BlockDocument.
	Title string `json:"title,omitempty"`
	// Raw is the block as it was written, whatever its type.
	Raw json.RawMessage `json:"-"`
}

// Source is the content of an image or a document.
type Source struct {
	// Type is "base64", "text", "url" or "file".
	Type string `json:"type"`
	// MediaType is such as "image/png" or "application/pdf".
	MediaType string `json:"media_type,omitempty"`
	// Data is base64 or text, as Type says.
	Data string `json:"data,omitempty"`
	// URL is where it is; the model's API fetches it.
	URL string `json:"url,omitempty"`
	// FileID is a file of the API's Files.
	FileID string `json:"file_id,omitempty"`
}

// Text is a block of text, for a prompt.
func Text(text string) ContentBlock { return ContentBlock{Type: BlockText, Text: text} }

// Image is an image of a media type such as "image/png", for a prompt. The API
// takes PNG, JPEG, GIF and WebP.
func Image(mediaType string, data []byte) ContentBlock {
	return ContentBlock{Type: BlockImage, Source: base64Source(mediaType, data)}
}

// Document is a document of a media type such as "application/pdf", for a
// prompt; a text/plain one is passed on as text. title may be empty.
func Document(title, mediaType string, data []byte) ContentBlock {
	source := base64Source(mediaType, data)
	if mediaType == "text/plain" {
		source = &Source{Type: "text", MediaType: mediaType, Data: string(data)}
	}
	return ContentBlock{Type: BlockDocument, Title: title, Source: source}
}

func base64Source(mediaType string, data []byte) *Source {
	return &Source{Type: "base64", MediaType: mediaType, Data: base64.StdEncoding.EncodeToString(data)}
}

// Bytes is the content itself; nil where it is elsewhere, or is not base64.
func (s *Source) Bytes() []byte {
	if s.Type == "text" {
		return []byte(s.Data)
	}
	data, err := base64.StdEncoding.DecodeString(s.Data)
	if err != nil || s.Type != "base64" {
		return nil
	}
	return data
}

// UnmarshalJSON decodes a block and keeps it whole in Raw. A field of another
// shape than this package knows is left empty.
func (b *ContentBlock) UnmarshalJSON(data []byte) error {
	b.decode(bytes.Clone(data))
	return nil
}

// decode reads a block of which data is not used for anything else.
func (b *ContentBlock) decode(data []byte) {
	*b = ContentBlock{Raw: raw(data)}
	members(data, func(key, value []byte) {
		switch string(key) {
		case "type":
			b.Type = blockType(value)
		case "text":
			b.Text = text(value)
		case "thinking":
			b.Thinking = text(value)
		case "signature":
			b.Signature = text(value)
		case "data":
			b.Data = text(value)
		case "id":
			b.ID = text(value)
		case "name":
			b.Name = text(value)
		case "server_name":
			b.ServerName = text(value)
		case "input":
			b.Input = raw(value)
		case "tool_use_id":
			b.ToolUseID = text(value)
		case "content":
			b.Content.decode(value)
		case "is_error":
			b.IsError = isTrue(value)
		case "source":
			b.Source = decodeSource(value)
		case "title":
			b.Title = text(value)
		}
	})
}

// decodeSource reads a source; nil where it is none.
func decodeSource(value []byte) *Source {
	if value[0] != '{' {
		return nil
	}
	s := new(Source)
	members(value, func(key, value []byte) {
		switch string(key) {
		case "type":
			s.Type = text(value)
		case "media_type":
			s.MediaType = text(value)
		case "data":
			s.Data = text(value)
		case "url":
			s.URL = text(value)
		case "file_id":
			s.FileID = text(value)
		}
	})
	return s
}

// blockType is text for the types that nearly all blocks have.
func blockType(value []byte) string {
	switch string(value) { // no allocation
	case `"text"`:
		return BlockText
	case `"thinking"`:
		return BlockThinking
	case `"tool_use"`:
		return BlockToolUse
	case `"tool_result"`:
		return BlockToolResult
	}
	return text(value)
}

// MarshalJSON gives Raw where there is one, so that nothing of a block is lost.
func (b ContentBlock) MarshalJSON() ([]byte, error) {
	if len(b.Raw) > 0 {
		return b.Raw, nil
	}
	type plain ContentBlock
	return json.Marshal(plain(b))
}

// Content is a list of blocks. Where the API allows a plain string instead, it
// is decoded as one block of text.
type Content []ContentBlock

// UnmarshalJSON decodes a list of blocks, or a string. Anything else is no content.
func (c *Content) UnmarshalJSON(data []byte) error {
	c.decode(bytes.Clone(data))
	return nil
}

func (c *Content) decode(data []byte) {
	*c = nil
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		*c = Content{{Type: BlockText, Text: text(data)}}
		return
	}
	elements(data, func(value []byte) {
		*c = append(*c, ContentBlock{})
		(*c)[len(*c)-1].decode(value)
	})
}

// Text is the text of the BlockText among the blocks, one after the other.
func (c Content) Text() string {
	if len(c) == 1 {
		return c[0].Text
	}
	var b strings.Builder
	for i := range c {
		if c[i].Type == BlockText {
			b.WriteString(c[i].Text)
		}
	}
	return b.String()
}

// ToolUses are the BlockToolUse among the blocks.
func (c Content) ToolUses() []ContentBlock { return c.of(BlockToolUse) }

// ToolResults are the BlockToolResult among the blocks.
func (c Content) ToolResults() []ContentBlock { return c.of(BlockToolResult) }

func (c Content) of(kind string) []ContentBlock {
	var blocks []ContentBlock
	for _, b := range c {
		if b.Type == kind {
			blocks = append(blocks, b)
		}
	}
	return blocks
}
