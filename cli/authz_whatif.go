package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newAuthzWhatIfCommand() *cobra.Command {
	var req httpapi.WhatIfRequest
	var names []string
	cmd := &cobra.Command{
		Use: "what-if (-f FILE | --delete KIND/NAME)...", Short: "Say which recorded requests a change of policies would deny or allow", Args: cobra.NoArgs,
		Long: `Replay what the proxies have let in and what not against the policies as they would be, and list every kind of request whose answer
changes, with its count and one sample, and whom that concerns. AuthorizationPolicies, AuthenticationPolicies and MeshConfig are taken.
What cannot be told is listed too, with what was not recorded: cookies, header and query fields and claims that no policy named at the time,
and addresses and tokens of what was recorded before proxies told them. Nothing is stored.
Exits with 0 if nothing changes, with 1 if something does or may, and with 2 if it could not be told.`,
		Example: `  tulle authz what-if -f policy.yaml
  tulle authz what-if --delete authorizationpolicy/cart`,
	}
	fileFlag(cmd, &names)
	o := outputFlag(cmd)
	cmd.Flags().StringArrayVar(&req.Deleted, "delete", nil, "`KIND/NAME` that would be deleted; repeatable")
	cmd.Flags().DurationVar(&req.Since, "since", 30*24*time.Hour, "how far back to look")
	namespaceFlag(cmd, &req.Namespace)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := whatIf(cmd, names, &req)
		if err == nil {
			err = o.print(cmd, answer, func(w io.Writer) { printWhatIf(w, answer) })
		}
		switch {
		case err != nil:
			fmt.Fprint(cmd.ErrOrStderr(), errorText(cmd.CommandPath(), err))
			return exitTrouble
		case len(answer.Flips)+len(answer.Unknown) > 0:
			return exitDiffers
		}
		return nil
	}
	return cmd
}

func whatIf(cmd *cobra.Command, names []string, req *httpapi.WhatIfRequest) (*advise.WhatIf, error) {
	if len(names) == 0 && len(req.Deleted) == 0 {
		return nil, errors.New("nothing is changed: write -f FILE, or --delete KIND/NAME")
	}
	var err error
	if len(names) > 0 {
		if req.Files, err = readFiles(cmd, names); err != nil {
			return nil, err
		}
	}
	c, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	out := &advise.WhatIf{}
	return out, c.call(cmd.Context(), http.MethodPost, "/v1/authz/what-if", req, out)
}

func printWhatIf(w io.Writer, a *advise.WhatIf) {
	if len(a.Flips)+len(a.Unknown) > 0 {
		row(w, "CHANGE", "SERVICE", "CALLER", "REQUEST", "COUNT", "SAMPLE", "BY")
	}
	for _, list := range [][]advise.Flip{a.Flips, a.Unknown} {
		for _, f := range together(list) {
			row(w, change(&f), f.Service, principalsText([]string{f.Caller()}), asked(&f), f.Count, sampleText(&f), reason(&f))
		}
	}
	sum := uint64(0)
	for i := range a.Flips {
		sum += a.Flips[i].Count
	}
	fmt.Fprintf(w, "%d of %d recorded requests change", sum, a.Requests)
	if len(a.Affected) > 0 {
		fmt.Fprintf(w, "; callers: %s", strings.Join(a.Affected, ", "))
	}
	fmt.Fprintln(w)
	if a.Others > 0 {
		fmt.Fprintf(w, "%d more were counted but not recorded: nothing can be told of them\n", a.Others)
	}
}

// asked answers "GET /items/{id} on port 80".
func asked(f *advise.Flip) string {
	if f.TCP {
		return fmt.Sprintf("connection to port %d", f.Port)
	}
	return commented(f.Method+" "+f.Path) + fmt.Sprintf(" on port %d", f.Port)
}

func sampleText(f *advise.Flip) string {
	if f.Sample != "" {
		return strings.TrimSpace(commented(f.Sample) + " " + commented(f.Request))
	}
	return commented(f.Request)
}

func change(f *advise.Flip) string {
	if len(f.Why) > 0 {
		return "may change: " + f.Before + " → " + f.After
	}
	return f.Before + " → " + f.After
}

func reason(f *advise.Flip) string {
	if len(f.Why) > 0 {
		return "not recorded: " + strings.Join(f.Why, ", ")
	}
	return f.By
}

// together counts in one line what only differs in what is not shown, such as the caller's address.
func together(list []advise.Flip) (out []advise.Flip) {
	at := map[string]int{}
	for i := range list {
		f := list[i]
		k := strings.Join([]string{change(&f), f.Service, f.Caller(), asked(&f), reason(&f)}, "\x00")
		if n, ok := at[k]; ok {
			out[n].Count += f.Count
			continue
		}
		at[k] = len(out)
		out = append(out, f)
	}
	return out
}
