package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/model"
)

func newRoutesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "routes [SERVICE]", Short: "Print what happens to the requests for services, in the order in which it is tried",
		Args: cobra.MaximumNArgs(1),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tables := []httpapi.RouteTable{}
		if err := listing(cmd, "/v1/routes", args, &tables); err != nil {
			return err
		}
		if len(args) == 1 && len(tables) == 0 {
			return unknownService(args[0])
		}
		return o.print(cmd, tables, func(w io.Writer) {
			row(w, "SERVICE", "MATCH", "TO", "TIMEOUT", "FROM")
			for _, t := range tables {
				for _, r := range t.Routes {
					timeout := ""
					if r.Timeouts.Request > 0 {
						timeout = r.Timeouts.Request.String()
					}
					row(w, t.Name, matchText(r.Match), goesTo(&r), timeout, fmt.Sprintf("%s[%d]", r.Name, r.Rule))
				}
				for _, r := range t.Relay {
					row(w, t.Name, strings.TrimSpace("connections "+strings.Join(r.SNI, ",")), backendsText(r.Backends), "", fmt.Sprintf("%s[%d]", r.Name, r.Rule))
				}
			}
			policiesTable(w, tables)
		})
	}
	return cmd
}

// policiesTable prints what policies say about each port and each route, and where every value comes from.
func policiesTable(w io.Writer, tables []httpapi.RouteTable) {
	head := false
	say := func(table, route string, list []compile.Value) {
		for _, v := range list {
			if !head {
				fmt.Fprintln(w)
				row(w, "SERVICE", "ROUTE", "POLICY", "VALUE", "FROM")
				head = true
			}
			from := v.From
			if v.On != "" {
				from += " (on " + v.On + ")"
			}
			row(w, table, route, v.Field, v.Value, from)
		}
	}
	for _, t := range tables {
		say(t.Name, "", t.Policies)
		for _, name := range slices.Sorted(maps.Keys(t.RoutePolicies)) {
			say(t.Name, name, t.RoutePolicies[name])
		}
	}
}

// matchText answers "GET /api* x-user=alice".
func matchText(m model.Match) string {
	path := m.Path
	switch m.PathKind {
	case model.PathPrefix:
		path = strings.TrimSuffix(path, "/") + "/*"
	case model.PathRegex:
		path = "~" + path
	}
	parts := []string{path}
	if m.Method != "" {
		parts = []string{m.Method, path}
	}
	for _, h := range m.Headers {
		parts = append(parts, fieldText(h, ""))
	}
	for _, q := range m.Query {
		parts = append(parts, fieldText(q, "?"))
	}
	return strings.Join(parts, " ")
}

func fieldText(f model.FieldMatch, mark string) string {
	if f.Regex {
		return mark + f.Name + "~" + f.Value
	}
	return mark + f.Name + "=" + f.Value
}

// goesTo says what becomes of the requests that a route takes.
func goesTo(r *model.Route) string {
	switch {
	case r.Redirect != nil:
		return fmt.Sprintf("redirect: %d %s", r.Redirect.Status, redirectText(r.Redirect))
	case r.Direct != nil:
		return fmt.Sprintf("answer: %d", r.Direct.Status)
	}
	out := backendsText(r.Backends)
	for _, m := range r.Mirrors {
		out += ", copies to " + m.Cluster.String()
		if m.Fraction > 0 {
			out += fmt.Sprintf(" %.4g%%", float64(m.Fraction)/10000)
		}
	}
	return out
}

// redirectText answers what a redirect changes of the URL: "https://shop.example:8443/new".
func redirectText(r *model.Redirect) string {
	out := ""
	if r.Scheme != "" {
		out = r.Scheme + "://"
	}
	out += r.Host
	if r.Port != 0 {
		out += fmt.Sprintf(":%d", r.Port)
	}
	switch r.Change {
	case model.PathFull:
		out += r.Path
	case model.PathPrefixed:
		out += strings.TrimSuffix(r.Path, "/") + "/*"
	case model.PathPattern:
		out += "~" + r.Pattern + "→" + r.Path
	}
	return out
}

// backendsText answers "reviews-v1.default:9080 90%, reviews-v2.default:9080 10%".
func backendsText(list []model.Backend) string {
	var total uint64
	for _, b := range list {
		total += uint64(b.Weight)
	}
	var parts []string
	for _, b := range list {
		text := b.Cluster.String()
		if len(list) > 1 {
			text += fmt.Sprintf(" %.4g%%", 100*float64(b.Weight)/float64(max(total, 1)))
		}
		if b.Invalid {
			text += " (does not resolve: 500)"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "nobody: 500"
	}
	return strings.Join(parts, ", ")
}
