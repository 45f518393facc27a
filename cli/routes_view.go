package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/model"
)

// listWidth is what a line of the listing of routes is kept under, as far as its words allow.
const listWidth = 80

// viewTable prints what happens to the requests for one port, one block for each match, in the order in which they are tried.
func viewTable(w io.Writer, t *httpapi.RouteTable) {
	fmt.Fprintf(w, "%s\n", t.Name)
	viewPolicies(w, "  ", t.Policies)
	shown, by := []compile.Value{}, "" // the last policies of a route
	for i := range t.Routes {
		r := &t.Routes[i]
		name := fmt.Sprintf("%s[%d]", r.Name, r.Rule)
		viewBlock(w, matchText(r.Match), goesTo(r), r.Fault, "request", name)
		if r.Timeouts.Request > 0 {
			fmt.Fprintf(w, "      timeout: %s\n", r.Timeouts.Request)
		}
		last := i+1 == len(t.Routes) || t.Routes[i+1].Name != r.Name || t.Routes[i+1].Rule != r.Rule
		if last { // several matches of a rule follow each other, or are far apart: then it is said with each
			list := t.RoutePolicies[name]
			if len(list) > 0 && slices.Equal(list, shown) {
				fmt.Fprintf(w, "      policies as of %s\n", by)
			} else {
				viewPolicies(w, "      ", list)
				shown, by = list, name
			}
		}
	}
	for i := range t.Relay {
		r := &t.Relay[i]
		to, name := backendLines(r.Backends), fmt.Sprintf("%s[%d]", r.Name, r.Rule)
		if f := r.Fallback; f != nil {
			to = append(to, "where no endpoint can: "+f.Cluster.String())
		}
		viewBlock(w, strings.TrimSpace("connections "+strings.Join(r.SNI, ",")), to, r.Fault, "connection", name)
		viewPolicies(w, "      ", t.RoutePolicies[name])
	}
	fmt.Fprintln(w)
}

// viewBlock prints a match, where it leads, and where both are written.
func viewBlock(w io.Writer, match string, to []string, f *model.Fault, what, from string) {
	line := "  " + match
	if pad := listWidth - len(line) - len(from) - 2; pad >= 0 {
		fmt.Fprintf(w, "%s  %s%s\n", line, strings.Repeat(" ", pad), from)
	} else {
		fmt.Fprintf(w, "%s\n      from: %s\n", line, from)
	}
	if f != nil {
		fmt.Fprintf(w, "      FAULT: %s\n", faultText(f, what))
	}
	for _, line := range to {
		fmt.Fprintf(w, "      → %s\n", line)
	}
}

// faultText says what is injected: "10% wait 500ms, 5% are answered 503, of those with x-test=yes".
func faultText(f *model.Fault, what string) string {
	share := func(n uint32) string { return fmt.Sprintf("%g%%", float64(n)/10000) }
	var parts []string
	if f.DelayShare > 0 && f.Delay > 0 {
		parts = append(parts, share(f.DelayShare)+" wait "+f.Delay.String())
	}
	switch {
	case f.AbortShare == 0:
	case f.Reset:
		parts = append(parts, share(f.AbortShare)+" are reset")
	default:
		text := share(f.AbortShare) + " are answered " + strconv.Itoa(f.Status)
		if f.GRPC > 0 {
			text += " (gRPC status " + strconv.Itoa(f.GRPC) + ")"
		}
		parts = append(parts, text)
	}
	if f.RateShare > 0 && f.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%s are slowed down to %d bytes a second", share(f.RateShare), f.Rate))
	}
	if len(parts) == 0 {
		return "0% of " + what + "s: it does nothing now"
	}
	out := strings.Join(parts, ", ")
	for i, h := range f.Headers {
		if i == 0 {
			out += ", of those with"
		} else {
			out += " and"
		}
		out += " " + fieldText(h, "")
	}
	return out
}

// viewPolicies prints values in force and who has said so, one line for each; what is an object is one line for each field.
func viewPolicies(w io.Writer, indent string, list []compile.Value) {
	from := ""
	for _, v := range list {
		text := v.From
		if v.On != "" {
			text += " (on " + v.On + ")"
		}
		if text != from {
			fmt.Fprintf(w, "%sby %s:\n", indent, text)
			from = text
		}
		var value any
		if json.Unmarshal([]byte(v.Value), &value) != nil {
			value = v.Value
		}
		viewValue(w, indent+"  ", v.Field, value)
	}
}

// viewValue prints a value, each scalar in a line of its own; a list of scalars is one line.
func viewValue(w io.Writer, indent, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			fmt.Fprintf(w, "%s%s: given\n", indent, path)
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			viewValue(w, indent, path+"."+k, v[k])
		}
	case []any:
		var words []string
		for i, x := range v {
			switch x.(type) {
			case map[string]any, []any:
				viewValue(w, indent, fmt.Sprintf("%s[%d]", path, i), x)
			default:
				words = append(words, fmt.Sprint(x))
			}
		}
		if len(words) > 0 {
			viewLong(w, indent, path, words)
		}
	default:
		fmt.Fprintf(w, "%s%s: %v\n", indent, path, v)
	}
}

// viewLong prints a list of words, broken where the line is full.
func viewLong(w io.Writer, indent, path string, words []string) {
	line := indent + path + ":"
	for i, word := range words {
		if i+1 < len(words) {
			word += ","
		}
		if len(line)+1+len(word) > listWidth {
			fmt.Fprintln(w, line)
			line = indent + "   "
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}
