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
endpoints succeeds, and after what waits a request is therefore sent again. Until five outages were seen the waits are
exponential, 25 ms to 250 ms; a policy can fix them.`,
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
			row(w, "SERVICE", "OUTAGES", "P50", "P90", "P99", "LAST", "WAITS")
			for _, r := range list {
				row(w, r.Service, fmt.Sprintf("%.3g", r.Whole.Outages), span(r.Whole.P50), span(r.Whole.P90), span(r.Whole.P99),
					lastText(r.Last, time.Now()), waitsText(r))
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

// waitsText answers "190ms-230ms, 60ms-75ms, …", or what a policy says instead.
func waitsText(r httpapi.Retries) string {
	if len(r.Pinned) > 0 {
		return "pinned: " + strings.Join(r.Pinned, ", ")
	}
	if !r.Learned {
		return "25ms to 250ms, exponential"
	}
	var parts []string
	for _, w := range r.Waits {
		parts = append(parts, span(w.From)+"-"+span(w.To))
	}
	return strings.Join(parts, ", ")
}
