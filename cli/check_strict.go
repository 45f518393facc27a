package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/advise"
)

// strictFlags are those of tulle check --strict.
type strictFlags struct {
	on                 bool
	namespace, service string
	since              time.Duration
}

func (f *strictFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.on, "strict", false, "tell who would be cut off if ports were strict, and nothing else")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "with --strict: `namespace` of the services (default: all)")
	cmd.Flags().StringVar(&f.service, "service", "", "with --strict: one `service` (reviews, reviews.shop)")
	cmd.Flags().DurationVar(&f.since, "since", 7*24*time.Hour, "with --strict: how far back to look, 720h at most")
}

// check asks and prints. The error says how many would be cut off.
func (f *strictFlags) check(cmd *cobra.Command, c *client, o *output) error {
	q := url.Values{"namespace": {f.namespace}, "service": {f.service}, "since": {f.since.String()}}
	var list []advise.Exposed
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/plaintext?"+q.Encode(), nil, &list); err != nil {
		return err
	}
	if err := o.print(cmd, list, func(w io.Writer) { printExposed(w, list, f.since, time.Now()) }); err != nil {
		return err
	}
	cut := 0
	for i := range list {
		for k := range list[i].Callers {
			if list[i].Callers[k].CutOff {
				cut++
			}
		}
		if list[i].Others > 0 && list[i].Mode != "Strict" {
			cut++ // those that there was no room for
		}
	}
	if cut > 0 {
		return fmt.Errorf("%d callers would be cut off if these ports were strict", cut)
	}
	return nil
}

func printExposed(w io.Writer, list []advise.Exposed, since time.Duration, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintf(w, "nobody has reached a published port in plaintext in the last %s\n", hours(since))
		return
	}
	row(w, "SERVICE", "PORT", "MODE", "CALLER", "CAME", "REFUSED", "LAST", "FOR", "NEXT")
	for i := range list {
		e := &list[i]
		for k := range e.Callers {
			p := &e.Callers[k]
			what, next := "connections", p.Next
			if !p.TCP {
				what = commented(p.Sample)
			}
			if !p.CutOff {
				next = "refused already: " + next
			}
			row(w, e.Service, e.Port, e.Mode, p.Address, p.Count, p.Refused, age(time.UnixMilli(p.Last), now)+" ago", what, next)
		}
	}
	for i := range list {
		e := &list[i]
		if e.Others > 0 && (i == 0 || list[i-1].Service != e.Service) {
			fmt.Fprintf(w, "%s: %d more, of callers that there was no room for\n", e.Service, e.Others)
		}
		if known := time.UnixMilli(e.Since); now.Sub(known) < since && (i == 0 || list[i-1].Service != e.Service) {
			fmt.Fprintf(w, "%s: known since %s ago only, not for the last %s\n", e.Service, age(known, now), hours(since))
		}
	}
}

// hours answers a duration without what is zero in it.
func hours(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.String()
}
