package claude

import "encoding/json"

// words picks what Claude says to the user out of the messages. The zero value
// is ready.
type words struct {
	message  string // id of the message whose events are coming
	streamed bool   // its words have come as events
	begun    bool   // a block has begun, and nothing of it was said yet
	said     bool
}

// of gives the words of a message, "" if it has none that are new.
func (w *words) of(m *Message) string {
	if m.ParentToolUseID != "" {
		return ""
	}
	switch m.Type {
	case TypeStreamEvent:
		return w.event(m)
	case TypeAssistant:
		return w.assistant(m)
	}
	return ""
}

func (w *words) event(m *Message) string {
	var line struct {
		Event struct {
			Type    string `json:"type"`
			Message struct {
				ID string `json:"id"`
			} `json:"message"`
			Delta struct {
				Type string `json:"type"`
				Text string `json:"text"`
			} `json:"delta"`
		} `json:"event"`
	}
	if json.Unmarshal(m.Raw, &line) != nil {
		return ""
	}
	switch e := &line.Event; {
	case e.Type == "message_start":
		w.message, w.streamed = e.Message.ID, false
	case e.Type == "content_block_start":
		w.begun = true
	case e.Type == "content_block_delta" && e.Delta.Type == "text_delta":
		w.streamed = true
		return w.say(e.Delta.Text)
	}
	return ""
}

// assistant gives the words of a whole block, unless they came as events.
func (w *words) assistant(m *Message) string {
	a, err := m.Assistant()
	if err != nil || a.Error != "" || w.streamed && a.MessageID == w.message {
		return ""
	}
	var text string
	for _, b := range a.Content {
		if b.Type == BlockText {
			w.begun = true
			text += w.say(b.Text)
		}
	}
	return text
}

func (w *words) say(text string) string {
	if text == "" {
		return ""
	}
	if w.begun && w.said {
		text = "\n\n" + text
	}
	w.begun, w.said = false, true
	return text
}
