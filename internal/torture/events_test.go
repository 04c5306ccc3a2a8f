package torture

import (
	"bufio"
	"io"
	"iter"
	"strconv"
	"strings"
)

// readEvents gives the server-sent events of a stream that are whole.
func readEvents(r io.Reader) iter.Seq[event] {
	return func(yield func(event) bool) {
		var e event
		var data []string
		for br := bufio.NewReader(r); ; {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\n")
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "id":
				e.id, _ = strconv.Atoi(value)
			case "event":
				e.name = value
			case "data":
				data = append(data, value)
			case "":
				e.data = strings.Join(data, "\n")
				if !yield(e) {
					return
				}
				e, data = event{}, nil
			}
		}
	}
}
