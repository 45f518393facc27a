package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newRetriesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retries [SERVICE]", Short: "Print how long failures of services last, and the waits between retries that follow",
		Long: `Print what proxies have learned about how long failures of a service last, from the first failure until any of its
endpoints succeeds, and after what waits a request is therefore sent again, within the bounds of each route's policy. Until
five outages were seen the waits are exponential, 25 ms to 250 ms; a policy can pin them. RETRIES and REFUSED are further
attempts of all callers, and those that their budgets did not allow, since the control plane began; LEFT is the least
that a caller has left, of those that were to try again in the last seconds.`,
		Args: cobra.MaximumNArgs(1),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list := []httpapi.Retries{}
		if err := listing(cmd, "/v1/retries", args, &list); err != nil {
			return err
		}
		if len(args) == 1 && len(list) == 0 {
			return unknownService(args[0])
		}
		return o.print(cmd, list, func(w io.Writer) {
			row(w, "SERVICE", "OUTAGES", "P50", "P90", "P99", "LAST", "RETRIES", "REFUSED", "LEFT", "WAITS")
			for _, r := range list {
				left := ""
				if r.Left != nil {
					left = fmt.Sprint(*r.Left)
				}
				lines := waitsText(r)
				row(w, r.Service, fmt.Sprintf("%.3g", r.Whole.Outages), span(r.Whole.P50), span(r.Whole.P90), span(r.Whole.P99),
					lastText(r.Last, time.Now()), fmt.Sprint(r.Made), fmt.Sprint(r.Refused), left, lines[0])
				for _, more := range lines[1:] {
					row(w, "", "", "", "", "", "", "", "", "", more)
				}
			}
		})
	}
	return cmd
}

// span answers "200ms" or "1.2s" for milliseconds.
func span(ms float64) string {
	switch {
	case ms == 0:
		return ""
	case ms < 1000:
		return fmt.Sprintf("%.3gms", ms)
	}
	return fmt.Sprintf("%.3gs", ms/1000)
}

// lastText answers "1.2s 5m ago, 800ms 2h ago".
func lastText(list []httpapi.Outages, now time.Time) string {
	var parts []string
	for _, o := range list[:min(len(list), 3)] {
		parts = append(parts, fmt.Sprintf("%s %s ago", span(o.Lasted), age(o.Began, now)))
	}
	return strings.Join(parts, ", ")
}

// waitsText answers a line for each way in which routes wait, at least one: "learned: 190ms-230ms, 60ms-75ms", "pinned: 25ms to 250ms,
// exponential (HTTPRoute/default/reviews[0])", "not learned yet: 25ms to 250ms, exponential".
func waitsText(r httpapi.Retries) (lines []string) {
	of := map[string][]string{}
	for _, p := range r.Routes {
		text := unlearned
		switch {
		case p.Pinned:
			text = fmt.Sprintf("pinned: %s to %s, exponential", span(p.Base), span(p.Maximum))
		case len(p.Waits) > 0:
			text = "learned: " + spans(p.Waits)
		}
		if of[text] == nil {
			lines = append(lines, text)
		}
		of[text] = append(of[text], p.Route)
	}
	for i, l := range lines {
		routes := of[l]
		if len(routes) > 3 {
			routes = append(routes[:2:2], fmt.Sprintf("and %d more", len(routes)-2))
		}
		lines[i] += " (" + strings.Join(routes, ", ") + ")"
	}
	switch {
	case len(lines) > 0:
	case r.Learned:
		lines = []string{"no policy; learned: " + spans(r.Waits)}
	default:
		lines = []string{"no policy; " + unlearned}
	}
	return lines
}

const unlearned = "not learned yet: 25ms to 250ms, exponential"

func spans(waits []httpapi.Wait) string {
	var parts []string
	for _, w := range waits {
		parts = append(parts, span(w.From)+"-"+span(w.To))
	}
	return strings.Join(parts, ", ")
}
