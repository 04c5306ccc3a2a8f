package claudetest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
)

// Usage is what a reply reports as used, in tokens. The zero value is nothing.
type Usage struct {
	InputTokens              int `json:"input_tokens"`
	OutputTokens             int `json:"output_tokens"`
	CacheCreationInputTokens int `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int `json:"cache_read_input_tokens"`
	// CacheCreation1hInputTokens are those of CacheCreationInputTokens that are
	// kept for an hour; the others are kept for five minutes.
	CacheCreation1hInputTokens int `json:"-"`
	// WebSearchRequests is how many searches the API made, not tokens.
	WebSearchRequests int `json:"-"`
	// Speed is how it was served: standard, or fast. Empty: it is not said.
	Speed string `json:"-"`
}

// MarshalJSON writes it as the API does.
func (u Usage) MarshalJSON() ([]byte, error) {
	type plain Usage
	usage := struct {
		plain
		Creation *map[string]int `json:"cache_creation,omitempty"`
		Server   *map[string]int `json:"server_tool_use,omitempty"`
		Speed    string          `json:"speed,omitempty"`
	}{plain: plain(u), Speed: u.Speed}
	if u.CacheCreation1hInputTokens > 0 {
		usage.Creation = &map[string]int{
			"ephemeral_5m_input_tokens": u.CacheCreationInputTokens - u.CacheCreation1hInputTokens,
			"ephemeral_1h_input_tokens": u.CacheCreation1hInputTokens,
		}
	}
	if u.WebSearchRequests > 0 {
		usage.Server = &map[string]int{"web_search_requests": u.WebSearchRequests}
	}
	return json.Marshal(usage)
}

// Reply is the message that a [Script] writes. Where the client asked for a
// stream, everything is sent as soon as it is written; otherwise all of it is
// sent when the script returns. After Error or Disconnect, or once the client
// is gone, the other methods do nothing. It is not safe for concurrent use and
// must not be used after the script returned.
type Reply struct {
	w   http.ResponseWriter
	req *Request

	usage      Usage
	stopReason string
	blocks     []map[string]any // finished and open blocks, as the API writes them
	open       string           // type of the open block, or ""
	text       []byte           // of the open block
	usesTool   bool

	started bool // the header of the stream is out
	ended   bool // nothing more may be written
	abort   bool // cut the connection when the script returns
}

func newReply(w http.ResponseWriter, r *Request) *Reply {
	return &Reply{w: w, req: r, usage: Usage{InputTokens: 1, OutputTokens: 1}}
}

// Header returns the HTTP header of the reply. Changes count until the first
// content is written.
func (w *Reply) Header() http.Header { return w.w.Header() }

// Usage sets the tokens that the reply reports; the default is one each of
// input and output.
func (w *Reply) Usage(u Usage) { w.usage = u }

// StopReason sets the reason for which the model stopped. The default is
// tool_use where the reply used a tool, else end_turn.
func (w *Reply) StopReason(reason string) { w.stopReason = reason }

// Text says a piece of text: a delta of the current text block, or of a new one.
func (w *Reply) Text(delta string) { w.write("text", "text", "text_delta", delta) }

// Thinking thinks a piece of text: a delta of the current thinking block, or of
// a new one.
func (w *Reply) Thinking(delta string) { w.write("thinking", "thinking", "thinking_delta", delta) }

func (w *Reply) write(blockType, key, deltaType, delta string) {
	if w.ended {
		return
	}
	if w.open != blockType {
		w.EndBlock()
		block := map[string]any{"type": blockType, key: ""}
		if blockType == "thinking" {
			block["signature"] = ""
		}
		w.startBlock(blockType, block)
	}
	w.text = append(w.text, delta...)
	w.delta(map[string]any{"type": deltaType, key: delta})
}

// Tool asks for a tool to be run, with an input that marshals to a JSON object.
// An input that does not marshal panics: it is a mistake in the script.
func (w *Reply) Tool(name string, input any) {
	if w.ended {
		return
	}
	w.usesTool = true
	w.toolUse("tool_use", w.id("toolu_", len(w.blocks)), name, input)
}

// ServerTool says that the API itself ran one of its tools, web_search say, and
// what came of it: a block of type name_tool_result with the content, which
// marshals to JSON as https://docs.anthropic.com/en/docs/agents-and-tools/tool-use
// describes for the tool.
func (w *Reply) ServerTool(name string, input, content any) {
	if w.ended {
		return
	}
	id := w.id("srvtoolu_", len(w.blocks))
	w.toolUse("server_tool_use", id, name, input)
	w.Block(map[string]any{"type": name + "_tool_result", "tool_use_id": id, "content": content})
}

// Block adds a content block that is complete from its start, for those that
// the other methods have no words for. A block that does not marshal panics.
func (w *Reply) Block(block map[string]any) {
	if w.ended {
		return
	}
	w.EndBlock()
	kind, _ := block["type"].(string)
	w.startBlock(kind, block)
	w.open = "whole" // its end adds nothing
	w.EndBlock()
}

// toolUse writes a block with an input that comes in pieces.
func (w *Reply) toolUse(kind, id, name string, input any) {
	w.EndBlock()
	encoded, err := json.Marshal(input)
	if err != nil {
		panic(fmt.Sprintf("claudetest: input of tool %s: %v", name, err))
	}
	w.startBlock(kind, map[string]any{"type": kind, "id": id, "name": name, "input": struct{}{}})
	half := len(encoded) / 2 // real replies come in pieces that are no JSON by themselves
	for _, part := range []string{string(encoded[:half]), string(encoded[half:])} {
		w.delta(map[string]any{"type": "input_json_delta", "partial_json": part})
	}
	w.blocks[len(w.blocks)-1]["input"] = json.RawMessage(encoded)
	w.EndBlock()
}

// EndBlock ends the current content block, so that the next text starts another.
func (w *Reply) EndBlock() {
	if w.ended || w.open == "" {
		return
	}
	switch block := w.blocks[len(w.blocks)-1]; w.open {
	case "text":
		block["text"] = string(w.text)
	case "thinking":
		signature := w.id("sig_", len(w.blocks))
		block["thinking"], block["signature"] = string(w.text), signature
		w.delta(map[string]any{"type": "signature_delta", "signature": signature})
	}
	w.event("content_block_stop", map[string]any{"index": len(w.blocks) - 1})
	w.open, w.text = "", nil
}

// Event sends an event as it is, for what the other methods have no words for;
// data marshals to a JSON object. It does nothing where the client did not ask
// for a stream.
func (w *Reply) Event(name string, data map[string]any) {
	w.start()
	w.event(name, data)
}

// Error fails the reply; see [Error].
func (w *Reply) Error(status int, errType, message string) {
	if w.ended {
		return
	}
	if w.started {
		w.event("error", map[string]any{"error": map[string]any{"type": errType, "message": message}})
	} else {
		writeError(w.w, status, errType, message)
	}
	w.ended = true
}

// Disconnect cuts the connection; see [Disconnect].
func (w *Reply) Disconnect() {
	if !w.ended {
		w.ended, w.abort = true, true
	}
}

// Cut cuts the connection in the middle of an event; see [Cut].
func (w *Reply) Cut() {
	if w.ended {
		return
	}
	w.start()
	half := "event: content_block_delta\ndata: {\"type\":\"content_block_d"
	if !w.started {
		w.w.Header().Set("Content-Type", "application/json")
		w.w.Header().Set("Content-Length", "1000")
		half = `{"id":"msg_`
	}
	_, _ = w.w.Write([]byte(half)) // a failure means it is cut already
	_ = http.NewResponseController(w.w).Flush()
	w.Disconnect()
}

func (w *Reply) startBlock(blockType string, block map[string]any) {
	w.start()
	w.blocks = append(w.blocks, block)
	w.open = blockType
	w.event("content_block_start", map[string]any{"index": len(w.blocks) - 1, "content_block": block})
}

func (w *Reply) delta(delta map[string]any) {
	w.event("content_block_delta", map[string]any{"index": len(w.blocks) - 1, "delta": delta})
}

// start sends the header of a stream, once.
func (w *Reply) start() {
	if w.started || w.ended || !w.req.Stream {
		return
	}
	w.started = true
	h := w.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	w.w.WriteHeader(http.StatusOK)
	message := w.message()
	message["content"] = []any{}
	first := w.usage
	first.OutputTokens = min(first.OutputTokens, 1)
	message["usage"] = first
	w.event("message_start", map[string]any{"message": message})
}

// message is the frame that both ways of answering share.
func (w *Reply) message() map[string]any {
	return map[string]any{
		"id": w.id("msg_", 0), "type": "message", "role": "assistant", "model": w.req.Model,
		"stop_reason": nil, "stop_sequence": nil,
	}
}

// event writes one server-sent event and flushes it.
func (w *Reply) event(name string, data map[string]any) {
	if w.ended || !w.started {
		return
	}
	fields := map[string]any{"type": name}
	for k, v := range data {
		fields[k] = v
	}
	encoded, err := json.Marshal(fields)
	if err != nil {
		panic(fmt.Sprintf("claudetest: event %s: %v", name, err))
	}
	if _, err := fmt.Fprintf(w.w, "event: %s\ndata: %s\n\n", name, encoded); err != nil {
		w.ended = true
		return
	}
	if err := http.NewResponseController(w.w).Flush(); err != nil {
		w.ended = true
	}
}

// finish completes the reply after the script returned.
func (w *Reply) finish() {
	if w.abort {
		if w.started {
			_ = http.NewResponseController(w.w).Flush() // a failure means it is cut already
		}
		panic(http.ErrAbortHandler)
	}
	if w.ended {
		return
	}
	w.start()
	w.EndBlock()
	reason := w.stopReason
	if reason == "" {
		reason = "end_turn"
		if w.usesTool {
			reason = "tool_use"
		}
	}
	if w.req.Stream {
		w.event("message_delta", map[string]any{
			"delta": map[string]any{"stop_reason": reason, "stop_sequence": nil}, "usage": w.usage,
		})
		w.event("message_stop", nil)
		return
	}
	message := w.message()
	message["content"] = append([]map[string]any{}, w.blocks...)
	message["stop_reason"], message["usage"] = reason, w.usage
	writeJSON(w.w, http.StatusOK, message)
}

// id derives an id from the conversation so far: the same request gets the same
// ids on every run and from every server, and a later one gets others.
func (w *Reply) id(prefix string, index int) string {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, uint64(index)) // a hash takes everything
	_, _ = h.Write(w.req.rawMessage)
	return prefix + hex.EncodeToString(h.Sum(nil))[:24]
}
