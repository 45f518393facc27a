package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

// fieldChanges answers the fields of an object that differ, a line for each: "spec.timeouts.request: 3s → 2s".
func fieldChanges(before, after json.RawMessage) (out []string) {
	was, is := leaves(before), leaves(after)
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if was[p] != is[p] {
			out = append(out, fmt.Sprintf("%s: %s → %s", p, none(was[p]), none(is[p])))
		}
	}
	return out
}

// leaves answers every value of an object that is no object and no list, by its path.
func leaves(text json.RawMessage) map[string]string {
	out := map[string]string{}
	var root any
	if len(text) == 0 || json.Unmarshal(text, &root) != nil {
		return out
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(strings.TrimPrefix(path+"."+k, "."), x)
			}
			if len(v) == 0 && path != "" {
				out[path] = "{}"
			}
		case []any:
			for i, x := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), x)
			}
			if len(v) == 0 {
				out[path] = "[]"
			}
		case nil:
		default:
			out[path] = fmt.Sprint(v)
		}
	}
	walk("", root)
	return out
}

// printChanges prints what proxies would be told, and which of them: a line for each field that changes; of what is new or
// goes altogether the name says enough.
func printChanges(w io.Writer, list []compile.Change) {
	for _, c := range list {
		fmt.Fprintf(w, "%s %s %s\n", c.Kind, c.Name, c.Action)
		fmt.Fprintf(w, "  callers: %s\n", callersText(c.Callers))
		if c.Action == "changed" {
			printFields(w, c.Fields)
		}
	}
}

// printFields prints what changes: of a route that is new, or is gone, that.
func printFields(w io.Writer, list []compile.Field) {
	routes := map[string]string{} // whether a route is new or gone
	for _, f := range list {
		route, field, _ := strings.Cut(f.Path, "].")
		switch {
		case field == "Match.Path" && f.Before == "":
			routes[route] = "is new"
		case field == "Match.Path" && f.After == "":
			routes[route] = "is gone"
		}
	}
	said := map[string]bool{}
	for _, f := range list {
		route, _, _ := strings.Cut(f.Path, "].")
		switch what := routes[route]; {
		case what != "" && said[route]:
		case what != "":
			fmt.Fprintf(w, "  %s] %s\n", route, what)
			said[route] = true
		case f.Before == "" && f.After == "set" || f.Before == "set" && f.After == "": // the fields within say it
		default:
			fmt.Fprintf(w, "  %s: %s → %s\n", f.Path, none(f.Before), none(f.After))
		}
	}
}

func callersText(list []string) string {
	if len(list) == 0 {
		return "none has it now"
	}
	return strings.Join(list, ", ")
}

// printConcerned says after a difference whom it concerns.
func printConcerned(w io.Writer, list []compile.Change) {
	for _, c := range list {
		fmt.Fprintf(w, "# %s %s %s; callers: %s\n", c.Kind, c.Name, c.Action, callersText(c.Callers))
	}
}

// printPlanned prints what would become of each object, field by field.
func printPlanned(w io.Writer, list []httpapi.Applied) {
	for _, o := range list {
		if o.Action != "configured" {
			continue
		}
		fmt.Fprintf(w, "%s/%s would change\n", strings.ToLower(o.Kind), o.Name)
		for _, line := range fieldChanges(o.Before, o.After) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}
