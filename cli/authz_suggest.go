package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/advise"
)

func newAuthzSuggestCommand() *cobra.Command {
	var namespace, service string
	var since time.Duration
	var hosts bool
	cmd := &cobra.Command{
		Use: "suggest [--namespace N] [--service S] [--since 24h]", Short: "Propose the policies that allow what was observed, and nothing else", Args: cobra.NoArgs,
		Long: `Propose the smallest AuthorizationPolicies that allow what the proxies of services have let in, by caller, port, method and path, and
nothing else: callers that did the same share a rule; numbers, UUIDs and places of a path in which there were many different elements become
templates. For each rule it says how often it was used, when last and for what; and it names the rules that are in force and decided nothing.
-o yaml prints what 'tulle apply -f -' takes. Try it with 'tulle authz what-if -f FILE' first, or with dryRun: true. What was denied is
left out. Counts are since the first of each kind of request, which may be before --since.`,
		Example: `  tulle authz suggest --service reviews
  tulle authz suggest --namespace shop --since 168h -o yaml > least.yaml`,
	}
	o := outputFlag(cmd)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "`namespace` of the services (default: all)")
	cmd.Flags().StringVar(&service, "service", "", "one `service` (reviews, reviews.shop)")
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back to look")
	cmd.Flags().BoolVar(&hosts, "hosts", false, "rules also say which hosts were asked for")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		q := url.Values{"namespace": {namespace}, "service": {service}, "since": {since.String()}, "hosts": {strconv.FormatBool(hosts)}}
		var list []advise.Suggestion
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/authz/suggest?"+q.Encode(), nil, &list); err != nil {
			return err
		}
		if *o == "yaml" {
			return writePolicies(cmd.OutOrStdout(), list)
		}
		if len(list) == 0 && service != "" {
			return fmt.Errorf("nothing was observed of service %s in the last %s: call it, or look further back with --since", service, since)
		}
		return o.print(cmd, list, func(w io.Writer) { printSuggestions(w, list, time.Now()) })
	}
	return cmd
}

// writePolicies writes what can be applied, with what is known of each rule as comments.
func writePolicies(w io.Writer, list []advise.Suggestion) error {
	for i := range list {
		s := &list[i]
		for _, n := range s.Notes {
			fmt.Fprintf(w, "# %s: %s\n", s.Service, n)
		}
		for _, u := range s.Rules {
			fmt.Fprintf(w, "# %s %s: used %d times, last %s for %s\n", u.Policy, u.Rule, u.Count, time.UnixMilli(u.Last).UTC().Format(time.RFC3339), commented(u.What))
		}
		for _, u := range s.Unused {
			fmt.Fprintf(w, "# in force and not used: %s %s (%s)\n", u.Policy, u.Rule, u.Action)
		}
		for _, p := range s.Policies {
			text, err := json.Marshal(p)
			if err != nil {
				return err
			}
			var m map[string]any
			if err := json.Unmarshal(text, &m); err != nil {
				return err
			}
			delete(m, "status")
			var b bytes.Buffer
			if err := writeYAML(&b, m); err != nil {
				return err
			}
			fmt.Fprintf(w, "---\n%s", b.String())
		}
	}
	return nil
}

// commented answers text that stays on its line; a caller may have written anything.
func commented(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func printSuggestions(w io.Writer, list []advise.Suggestion, now time.Time) {
	row(w, "SERVICE", "POLICY", "RULE", "CALLERS", "USED", "LAST", "FOR")
	for i := range list {
		s := &list[i]
		for _, u := range s.Rules {
			row(w, s.Service, u.Policy[strings.LastIndexByte(u.Policy, '/')+1:], u.Rule, principalsText(u.Callers), u.Count, age(time.UnixMilli(u.Last), now)+" ago", commented(u.What))
		}
	}
	for i := range list {
		for _, u := range list[i].Unused {
			fmt.Fprintf(w, "in force and not used: %s %s (%s)\n", u.Policy, u.Rule, u.Action)
		}
		for _, n := range list[i].Notes {
			fmt.Fprintf(w, "%s: %s\n", list[i].Service, n)
		}
	}
}

// principalsText answers up to two callers without what all have in common.
func principalsText(list []string) string {
	var parts []string
	for i, c := range list {
		if i == 2 {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-2))
			break
		}
		parts = append(parts, strings.TrimPrefix(c, "spiffe://"))
	}
	return strings.Join(parts, ", ")
}
