package claude

// words picks what Claude says to the user out of the messages. The zero value
// is ready.
type words struct {
	message  string // id of the message whose events are coming
	streamed bool   // its words have come as events
	begun    bool   // a block has begun, and nothing of it was said yet
	said     bool
}

// of gives the words of a message, "" if it has none that are new.
func (w *words) of(e *entry) string {
	if e.err != nil || e.env.parent != "" {
		return ""
	}
	switch e.env.typ {
	case typeStreamEvent, typeAssistant:
	default:
		return ""
	}
	switch m := e.message().(type) {
	case *StreamEvent:
		return w.event(m)
	case *AssistantMessage:
		return w.assistant(m)
	}
	return ""
}

func (w *words) event(e *StreamEvent) string {
	switch {
	case e.Kind == "message_start":
		w.message, w.streamed = messageID(e.Event), false
	case e.Kind == "content_block_start":
		w.begun = true
	case e.DeltaType == "text_delta":
		w.streamed = true
		return w.say(e.Text)
	}
	return ""
}

// messageID is the id of the message that an event starts.
func messageID(event []byte) (id string) {
	members(event, func(key, value []byte) {
		if string(key) != "message" {
			return
		}
		members(value, func(key, value []byte) {
			if string(key) == "id" {
				id = text(value)
			}
		})
	})
	return id
}

// assistant gives the words of a whole block, unless they came as events.
func (w *words) assistant(a *AssistantMessage) string {
	if a.Error != "" || w.streamed && a.MessageID == w.message {
		return ""
	}
	var text string
	for _, b := range a.Content() {
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
