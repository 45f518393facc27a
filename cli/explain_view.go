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

// headline answers "GET /items of reviews.default:80", or "GET / of 203.0.113.5:443 outside of the mesh".
func headline(e *flight.Explained) string {
	to := fmt.Sprintf("%s:%d", e.Destination, e.Port)
	if e.Destination == "" {
		to = outsideText(e)
	}
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
	fmt.Fprintf(w, "    peers     %s → %s%s\n", callerText(e), cmp.Or(e.DestinationID, e.Destination, outsideText(e)), mtlsText(e.MTLS))
	if e.Route != "" {
		fmt.Fprintf(w, "    route     %s rule %d → %s\n", e.Route, e.Rule, cmp.Or(e.Backend, "no backend"))
	} else if e.Backend != "" {
		fmt.Fprintf(w, "    route     none → %s\n", e.Backend)
	}
	if d := e.Decision; d != nil {
		printDecided(w, d)
	}
	if r := e.Refused; r != nil {
		printRefused(w, e, r)
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

// printDecided prints what policies said.
func printDecided(w io.Writer, d *flight.Decided) {
	fmt.Fprintf(w, "    policy    %s %s%s\n", d.Verdict, because(d), wordText(d))
	switch {
	case d.Nearest != "":
		fmt.Fprintf(w, "    nearest   %s\n", commented(d.Nearest))
	case d.Absent:
		fmt.Fprintf(w, "    nearest   not looked for, there were others like it in the same second: ask 'tulle authz check'\n")
	}
	if d.Dry != "" {
		fmt.Fprintf(w, "    dry run   %s: %s\n", d.Dry, d.DryBy)
	}
	if d.Audit != "" {
		fmt.Fprintf(w, "    recorded  for %s\n", d.Audit)
	}
}

// because is becauseText of what an authorizer may have had the last word about.
func because(d *flight.Decided) string {
	if d.Policy == "" && !d.Absent && d.Word != "" {
		return "by " + d.External
	}
	return becauseText(d.Policy, d.Rule, d.Absent)
}

// wordText says what an external authorizer had to say, and who asks it where another policy has decided.
func wordText(d *flight.Decided) string {
	said, who := "", cmp.Or(d.Authorizer, "its authorizer")
	switch {
	case d.Word == "agreed":
		said = ", agreed by " + who
	case d.Word == "refused":
		said = ", refused by " + who
	case d.Word != "" && d.Verdict == "allowed":
		said = ", let through without an answer of " + who + " (failOpen)"
	case d.Word != "":
		said = ", without an answer of " + who
	default:
		return ""
	}
	if asks := strings.TrimSpace(d.Policy + " " + d.Rule); d.Policy != "" && d.External != asks {
		said += " for " + d.External
	}
	return said
}

// printRefused prints what refused where no authorization policy did.
func printRefused(w io.Writer, e *flight.Explained, r *flight.Refused) {
	text := commented(r.Cause)
	if r.By != "" {
		text = "by " + r.By
		if r.Cause != "" {
			text += ": " + commented(r.Cause)
		}
	}
	fmt.Fprintf(w, "    refused   %s\n", text)
	if r.Issuer != "" {
		fmt.Fprintf(w, "    token     names %s as its issuer\n", commented(r.Issuer))
	}
	if e.Host != "" && e.Direction == "outbound" {
		fmt.Fprintf(w, "    host      %s\n", commented(e.Host))
	}
}

// outsideText names what is outside of the mesh.
func outsideText(e *flight.Explained) string {
	if e.Wanted != "" {
		return e.Wanted + " outside of the mesh"
	}
	return "outside of the mesh"
}

// callerText names who calls.
func callerText(e *flight.Explained) string {
	if e.SourceID == "" && e.Source == "" && e.From != "" {
		return e.From + " in plaintext"
	}
	return cmp.Or(e.SourceID, e.Source, "plaintext")
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
