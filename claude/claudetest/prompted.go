package claudetest

import (
	"fmt"
	"path"
	"strings"
	"unicode"
)

const promptedHelp = `I am a scripted stand-in, not a model, so I cannot answer that. I do what lines of these forms say, with Claude Code's own tools:

    write FILE: TEXT
    make a file FILE
    run: COMMAND

For example "write hello.txt: Hello!" or "run: ls -l". Several such lines in one message are done in order.
`

const madeText = "Made by the scripted stand-in, with Claude Code's Write tool.\n"

const (
	maxActions = 100     // of one prompt
	maxShown   = 8 << 10 // bytes of one tool's result in the report
)

// Prompted returns a script for demonstrations without a model. A prompt with
// lines of the form
//
//	write FILE: TEXT
//	make a file FILE
//	run: COMMAND
//
// makes the CLI call its Write and Bash tools, one line after the other, and
// then reports what the tools answered; a line that failed does not stop those
// after it. FILE is relative to the CLI's working directory and holds TEXT and
// nothing else afterwards; without a TEXT, a line that says who made it. Other lines are passed over, and a prompt that has
// no such line is answered with a text that says what the script is and shows
// the forms. At most 100 lines of a prompt are done.
//
// The script keeps no state: what is done is read off the conversation, so it
// serves any number of sessions, also resumed ones.
func Prompted() Script {
	return func(w *Reply, r *Request) {
		at, prompt := r.lastPrompt()
		said := append([]string{prompt}, r.Queued()...) // what is queued is done last
		actions, skipped := parsePrompt(strings.Join(said, "\n"))
		if len(actions) == 0 {
			say(w, promptedHelp)
			return
		}
		results, next := replay(actions, callsIn(r.Messages[at+1:]), r.WorkingDir())
		if next != nil {
			w.Tool(next.name, next.input)
			return
		}
		say(w, report(actions, results, skipped))
	}
}

// say writes a text line by line, as a model would stream it.
func say(w *Reply, text string) {
	for line := range strings.Lines(text) {
		w.Text(line)
	}
}

// action is what one line of a prompt asks for: a file to be written, or a
// command to be run where file is "".
type action struct {
	file, text string
	command    string
}

// parsePrompt returns what the lines of a prompt ask for, and how many lines
// that say something are not, or no longer, done.
func parsePrompt(prompt string) (actions []action, skipped int) {
	for line := range strings.Lines(prompt) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		a, ok := parseLine(line)
		if !ok || len(actions) == maxActions {
			skipped++
			continue
		}
		actions = append(actions, a)
	}
	return actions, skipped
}

func parseLine(line string) (action, bool) {
	if rest, ok := cutKeyword(line, "run:"); ok {
		command := strings.TrimSpace(rest)
		return action{command: command}, command != "" && !strings.ContainsRune(command, 0)
	}
	if file, ok := cutKeyword(line, "make a file "); ok {
		return fileAction(strings.TrimSuffix(file, "."), madeText)
	}
	rest, ok := cutKeyword(line, "write ")
	if !ok {
		return action{}, false
	}
	file, text, ok := strings.Cut(rest, ": ")
	if !ok {
		file, text, ok = strings.Cut(rest, ":")
	}
	if !ok {
		return action{}, false
	}
	return fileAction(file, text)
}

func fileAction(file, text string) (action, bool) {
	file = strings.TrimSpace(file)
	return action{file: file, text: text}, file != "" && !strings.ContainsFunc(file, unicode.IsControl)
}

// cutKeyword is strings.CutPrefix without regard to case: telephones write the
// first word of a message with a capital.
func cutKeyword(line, keyword string) (string, bool) {
	if len(line) < len(keyword) || !strings.EqualFold(line[:len(keyword)], keyword) {
		return "", false
	}
	return line[len(keyword):], true
}

// call is a call of a tool, to be made or made.
type call struct {
	name    string
	input   map[string]string
	result  string
	isError bool
}

func (a action) call(dir string) *call {
	if a.file == "" {
		return &call{name: "Bash", input: map[string]string{"command": a.command, "description": "Run what the prompt says"}}
	}
	return &call{name: "Write", input: map[string]string{"file_path": a.path(dir), "content": a.text}}
}

// path returns the absolute path of the file, which the Write tool wants. It
// takes a relative one too, which serves where the CLI did not say where it is.
func (a action) path(dir string) string {
	if dir == "" || path.IsAbs(a.file) || strings.HasPrefix(a.file, "~") {
		return a.file
	}
	return path.Join(dir, a.file)
}

// callsIn returns the calls in the messages that have a result.
func callsIn(messages []Message) []call {
	names := map[string]string{}
	var calls []call
	for _, m := range messages {
		for _, b := range m.Content {
			switch b.Type {
			case "tool_use":
				names[b.ID] = b.Name
			case "tool_result":
				calls = append(calls, call{name: names[b.ToolUseID], result: b.Result, isError: b.IsError})
			}
		}
	}
	return calls
}

// replay walks through the actions and the calls made for them. It returns the
// results so far and the call to make next, nil when everything is done.
func replay(actions []action, made []call, dir string) (results []call, next *call) {
	for _, a := range actions {
		if len(made) == 0 {
			return results, a.call(dir)
		}
		result := made[0]
		made = made[1:]
		if unread(result) { // it must be read before it is overwritten
			if len(made) == 0 {
				return results, &call{name: "Read", input: map[string]string{"file_path": a.path(dir)}}
			}
			if len(made) == 1 {
				return results, a.call(dir)
			}
			result, made = made[1], made[2:]
		}
		results = append(results, result)
	}
	return results, nil
}

// unread says that the Write tool refused to overwrite a file which was not
// read in this session.
func unread(c call) bool {
	return c.name == "Write" && c.isError && strings.Contains(c.result, "has not been read")
}

func report(actions []action, results []call, skipped int) string {
	var b strings.Builder
	for i, a := range actions {
		switch {
		case a.file != "" && !results[i].isError:
			fmt.Fprintf(&b, "Wrote %s.\n", a.file)
		case a.file != "":
			fmt.Fprintf(&b, "Could not write %s:\n%s", a.file, fenced(results[i].result))
		case !results[i].isError:
			fmt.Fprintf(&b, "Ran `%s`:\n%s", a.command, fenced(results[i].result))
		default:
			fmt.Fprintf(&b, "`%s` failed:\n%s", a.command, fenced(results[i].result))
		}
	}
	if skipped > 0 {
		fmt.Fprintf(&b, "Passed over %d line(s) that I do not understand: I am a scripted stand-in, not a model.\n", skipped)
	}
	return b.String()
}

// fenced returns a tool's result as a code block of Markdown, with a fence that
// the result does not contain.
func fenced(result string) string {
	result = strings.TrimSuffix(strings.TrimPrefix(result, "<tool_use_error>"), "</tool_use_error>")
	if len(result) > maxShown {
		result = strings.ToValidUTF8(result[:maxShown], "") + "\n… (cut)"
	}
	fence := "```"
	for strings.Contains(result, fence) {
		fence += "`"
	}
	return fence + "\n" + strings.TrimRight(result, "\n") + "\n" + fence + "\n"
}
