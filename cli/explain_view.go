package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/tulle-mesh/tulle/model/flight"
)

// printExplained prints each view of each request as sentences.
func printExplained(w io.Writer, list []flight.Explained) {
	for i := range list {
		e := &list[i]
		if i == 0 || e.Request == "" || e.Request != list[i-1].Request {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s %s: %s\n", cmp.Or(commented(e.Request), "connection"), e.Began.Format("2006-01-02 15:04:05.000"), headline(e))
		}
		printView(w, e)
	}
}

// headline answers "GET /items of reviews.default:80".
func headline(e *flight.Explained) string {
	to := fmt.Sprintf("%s:%d", cmp.Or(e.Destination, "outside of the mesh"), e.Port)
	if e.TCP {
		return "TCP to " + to
	}
	return commented(e.Method+" "+e.Path) + " of " + to
}

func printView(w io.Writer, e *flight.Explained) {
	where := "the server's proxy"
	if e.Direction == "outbound" {
		where = "the caller's proxy"
	}
	fmt.Fprintf(w, "  %s (%s/%s): %s, in %s\n", where, e.Namespace, e.Workload, outcomeText(e), span(max(e.Took, 0.001)))
	fmt.Fprintf(w, "    peers     %s → %s%s\n", cmp.Or(e.SourceID, e.Source, "plaintext"), cmp.Or(e.DestinationID, e.Destination, "outside of the mesh"), mtlsText(e.MTLS))
	if e.Route != "" {
		fmt.Fprintf(w, "    route     %s rule %d → %s\n", e.Route, e.Rule, cmp.Or(e.Backend, "no backend"))
	} else if e.Backend != "" {
		fmt.Fprintf(w, "    route     none → %s\n", e.Backend)
	}
	if d := e.Decision; d != nil {
		fmt.Fprintf(w, "    policy    %s %s\n", d.Verdict, becauseText(d.Policy, d.Rule, d.Absent))
		switch {
		case d.Nearest != "":
			fmt.Fprintf(w, "    nearest   %s\n", commented(d.Nearest))
		case d.Absent:
			fmt.Fprintf(w, "    nearest   not looked for, there were many denials: ask 'tulle authz check'\n")
		}
		if d.Dry != "" {
			fmt.Fprintf(w, "    dry run   %s: %s\n", d.Dry, d.DryBy)
		}
		if d.Audit != "" {
			fmt.Fprintf(w, "    recorded  for %s\n", d.Audit)
		}
	}
	for i, a := range e.Attempts {
		end := "answered"
		if a.Reason != "" {
			end = a.Reason
		}
		fmt.Fprintf(w, "    attempt %d %s %s, one of %d, after %s: %s, in %s\n", i+1, a.Endpoint, a.Address, a.From, stage(a.Wait), end, stage(a.Took))
	}
	if more := e.Made - len(e.Attempts); more > 0 {
		fmt.Fprintf(w, "    and %d attempts more\n", more)
	}
	if e.Answered > 0 {
		fmt.Fprintf(w, "    times     head of the response after %s, all of it after %s; %d bytes sent, %d received\n", stage(e.Answered), stage(e.Took), e.Sent, e.Received)
	}
}

func stage(ms float64) string { return cmp.Or(span(ms), "0ms") }

func mtlsText(on bool) string {
	if on {
		return ", mutual TLS"
	}
	return ""
}

func outcomeText(e *flight.Explained) string {
	var parts []string
	if e.Status > 0 {
		parts = append(parts, fmt.Sprint(e.Status))
	}
	if e.GRPC != nil {
		parts = append(parts, fmt.Sprintf("grpc-status %d", *e.GRPC))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if len(parts) == 0 {
		return "ended"
	}
	return strings.Join(parts, ", ")
}
