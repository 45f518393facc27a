package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

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
			for i := range tables {
				viewTable(w, &tables[i])
			}
		})
	}
	return cmd
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

// goesTo says what becomes of the requests that a route takes, a line for each place.
func goesTo(r *model.Route) (out []string) {
	switch {
	case r.Redirect != nil:
		return []string{fmt.Sprintf("redirect: %d %s", r.Redirect.Status, redirectText(r.Redirect))}
	case r.Direct != nil:
		return []string{fmt.Sprintf("answer: %d", r.Direct.Status)}
	}
	out = backendLines(r.Backends)
	for _, m := range r.Mirrors {
		text := "copies to " + m.Cluster.String()
		if m.Fraction > 0 {
			text += fmt.Sprintf(" %.4g%%", float64(m.Fraction)/10000)
		}
		if m.Invalid {
			text += " (does not resolve: none are sent)"
		}
		out = append(out, text)
	}
	if f := r.Fallback; f != nil {
		out = append(out, "instead of an overflow: "+f.Cluster.String())
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

// backendLines answers "reviews-v1.default:9080 90%" and "reviews-v2.default:9080 10%".
func backendLines(list []model.Backend) (out []string) {
	var total uint64
	for _, b := range list {
		total += uint64(b.Weight)
	}
	for _, b := range list {
		text := b.Cluster.String()
		if len(list) > 1 {
			text += fmt.Sprintf(" %.4g%%", 100*float64(b.Weight)/float64(max(total, 1)))
		}
		if b.Invalid {
			text += " (does not resolve: 500)"
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return []string{"nobody: 500"}
	}
	return out
}
