package peerbench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/vivarium-go/vivarium/internal/figure"
)

// table writes the medians in seconds, how many times each was measured, and the
// requests where they were counted.
func (r *race) table(w io.Writer) {
	fmt.Fprintf(w, "\nSeconds (medians; xN where not measured %d times; [requests]):\n", r.round)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "\t")
	for _, o := range operations {
		fmt.Fprintf(tw, "%s\t", o.name)
	}
	fmt.Fprintln(tw)
	for _, c := range r.contenders {
		fmt.Fprintf(tw, "%s\t", c.name)
		for _, o := range operations {
			fmt.Fprintf(tw, "%s\t", r.cell(o, c))
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush() // to stderr
	fmt.Fprintln(w)
}

func (r *race) cell(o operation, c *contender) string {
	n := len(r.times[o.name][c.name])
	if n == 0 && c.lost[o.tree] != nil {
		return "left out"
	}
	if n == 0 {
		return "-"
	}
	text := fmt.Sprintf("%.2f", r.median(o, c).Seconds())
	if n != r.round {
		text += fmt.Sprintf(" x%d", n)
	}
	if c.kind != peer {
		text += fmt.Sprintf(" [%d]", r.requests[o.name][c.name])
	}
	return text
}

// figures prints the FIGURE lines: ratios are ours over what is named.
func (r *race) figures(prefix string, local, exec *contender) {
	for _, o := range operations {
		if *only != "" && o.tree != *only {
			continue
		}
		best, low := r.best(o), r.fastest(o, floor)
		for _, c := range []*contender{local, exec} {
			if c == nil {
				continue
			}
			name := prefix + o.name
			if c == exec {
				name += "_exec"
			}
			if best != nil {
				r.line(o, name, c, best, "best-peer("+best.name+r.unmeasured(o)+")")
			}
			if low != nil {
				r.line(o, name, c, low, "floor")
			}
		}
		if exec != nil {
			r.line(o, prefix+o.name+"_exec", exec, local, "local")
		}
	}
	if *only != "" {
		return
	}
	ofFloor := max(1, r.requests["repo_first"]["floor"])
	n := r.requests["repo_first"][local.name]
	figure.Line(os.Stdout, prefix+"requests_first", float64(n), "requests", float64(n)/float64(ofFloor), "floor")
}

// unmeasured names the peers that are here and that the best was not chosen from,
// as in ",without-aws": one of them might have been better.
func (r *race) unmeasured(o operation) string {
	var names []string
	for _, c := range r.contenders {
		if c.kind == peer && len(r.times[o.name][c.name]) == 0 && !slower(c.lost[o.tree], o) {
			names = append(names, c.name)
		}
	}
	if names == nil {
		return ""
	}
	return ",without-" + strings.Join(names, "-")
}

// slower reports whether a peer was lost for being slow at this very operation,
// which is a measurement too.
func slower(lost error, o operation) bool {
	var slow *slowError
	return errors.As(lost, &slow) && slow.at == o.name
}

func (r *race) line(o operation, name string, c, other *contender, vs string) {
	mine, theirs := r.median(o, c).Seconds(), r.median(o, other).Seconds()
	figure.Line(os.Stdout, name, mine, "s", mine/theirs, vs)
}
