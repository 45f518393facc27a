package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/model"
)

// exitDenied says that what was asked about would be refused.
const exitDenied exitCode = 1

func newAuthzCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "authz", Short: "Ask what policies allow", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuthzCheckCommand(), newAuthzSuggestCommand(), newAuthzWhatIfCommand())
	return cmd
}

// checkFlags are those of 'tulle authz check'.
type checkFlags struct {
	req             httpapi.AuthzCheck
	headers, claims []string
	to              []string
	names           []string
	at              string
	offline         bool
}

func newAuthzCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use: "check --to SERVICE [--from ACCOUNT] [--method M --path /x]", Short: "Say whether a request would be allowed, and by what", Args: cobra.NoArgs,
		Long: `Say what the proxies of a service would decide about a request, or, without --method and --path, about a connection that is not
HTTP: which policy and rule decide, the nearest rule and what is missing where nothing allows it, and what policies in dry run
would have decided. What is refused before policies are asked is told too: a revoked caller, plaintext where the mode is Strict, a path
that can be read in more than one way, a token that is missing. About what is outside of the mesh (an
ExternalService, one of its hosts, any other host or address) the caller's proxies decide, so --from is needed.
The answer is that of the evaluator that proxies run; nothing is sent to anybody. With -f the policies
of files are held to be applied; with --offline they are all there is, and no control plane is asked.
Exits with 0 if it is allowed, with 1 if it is denied, and with 2 if it could not be told.`,
		Example: `  tulle authz check --from cart --to reviews --method GET --path /items/7
  tulle authz check --to reviews --port 5432 --ip 10.0.0.9
  tulle authz check --from cart --to api.example.com --port 443
  tulle authz check --from shop/cart --to reviews --method GET --path / --header x-user=alice -f policy.yaml`,
	}
	o := outputFlag(cmd)
	q, flags := &f.req.Question, cmd.Flags()
	flags.StringVar(&q.From, "from", "", "service `account` (cart, cart.shop, shop/cart) or SPIFFE ID that asks (default: nobody who proves who he is)")
	flags.StringVar(&q.To, "to", "", "`service` that is asked (reviews, reviews.shop), or what is outside of the mesh: an ExternalService, a host, an address")
	flags.StringVarP(&q.Namespace, "namespace", "n", "default", "`namespace` of both, where they do not say")
	flags.Uint16Var(&q.Port, "port", 0, "`port` of the service (default: the only one)")
	flags.StringVar(&q.Method, "method", "", "`method` of the request (default with --path: GET)")
	flags.StringVar(&q.Path, "path", "", "`path` of the request, with its query (default with --method: /)")
	flags.StringVar(&q.Host, "host", "", "`host` of the request (default: the service)")
	flags.BoolVar(&q.Procedure, "grpc", false, "it is a gRPC call: the path is /package.Service/Method")
	flags.StringArrayVar(&f.headers, "header", nil, "`name=value` of the request; repeatable")
	flags.StringVar(&q.IP, "ip", "", "`address` of the other end of the connection")
	flags.StringVar(&q.RemoteIP, "remote-ip", "", "`address` of the first client (default: --ip)")
	flags.StringVar(&q.ServerName, "sni", "", "server `name` of the program's own TLS")
	flags.StringVar(&q.Token, "token", "", "`issuer/subject` of a verified token")
	flags.StringArrayVar(&f.claims, "token-claim", nil, "`name=value` of the token; repeatable")
	flags.StringArrayVar(&f.to, "to-label", nil, "`name=value` of the workload that is asked, or that calls what is outside of the mesh (default: those that there are); repeatable")
	flags.StringVar(&f.at, "at", "", "`time` of the request, 2026-12-31T18:00:00Z (default: now)")
	flags.BoolVar(&f.offline, "offline", false, "ask no control plane: what is in the files is all there is")
	fileFlag(cmd, &f.names)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := f.ask(cmd)
		if err != nil {
			fmt.Fprint(cmd.ErrOrStderr(), errorText(cmd.CommandPath(), err))
			return exitTrouble
		}
		if err := o.print(cmd, a, func(w io.Writer) { printDecisions(w, a) }); err != nil {
			return err
		}
		if !a.Allowed {
			return exitDenied
		}
		return nil
	}
	return cmd
}

// ask reads the flags and asks.
func (f *checkFlags) ask(cmd *cobra.Command) (*httpapi.AuthzAnswer, error) {
	q := &f.req.Question
	if q.To == "" {
		return nil, errors.New("nobody is asked: write --to SERVICE")
	}
	switch {
	case q.Method == "" && (q.Path != "" || q.Procedure || q.Host != "" || len(f.headers) > 0):
		if q.Method = "GET"; q.Procedure {
			q.Method = "POST"
		}
	case q.Method != "":
		q.Method = strings.ToUpper(q.Method)
	}
	for _, one := range []struct {
		flag string
		from []string
		to   *[]compile.NameValue
	}{{"--header", f.headers, &q.Headers}, {"--token-claim", f.claims, &q.Claims}} {
		for _, s := range one.from {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				return nil, fmt.Errorf("%s %q: write name=value", one.flag, s)
			}
			*one.to = append(*one.to, compile.NameValue{Name: name, Value: value})
		}
	}
	for _, s := range f.to {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--to-label %q: write name=value", s)
		}
		q.ToLabels = append(q.ToLabels, model.Label{Name: name, Value: value})
	}
	q.Now = time.Now().Unix()
	if f.at != "" {
		t, err := time.Parse(time.RFC3339, f.at)
		if err != nil {
			return nil, fmt.Errorf("--at %q is not a time: write for example 2026-12-31T18:00:00Z", f.at)
		}
		q.Now = t.Unix()
	}
	if len(f.names) > 0 || f.offline {
		var err error
		if f.req.Files, err = readFiles(cmd, f.names); err != nil {
			return nil, err
		}
	}
	if f.offline {
		return httpapi.AuthzOffline(&f.req)
	}
	c, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	a := &httpapi.AuthzAnswer{}
	return a, c.call(cmd.Context(), http.MethodPost, "/v1/authz/check", f.req, a)
}

// printDecisions prints what would be decided, and why, as sentences.
func printDecisions(w io.Writer, a *httpapi.AuthzAnswer) {
	for _, d := range a.Decisions {
		of := ""
		if len(d.Labels) > 0 || len(a.Decisions) > 1 {
			var parts []string
			for _, l := range d.Labels {
				parts = append(parts, l.Name+"="+l.Value)
			}
			who := "workloads"
			if d.Egress != "" {
				who = "callers"
			}
			of = " (" + who + " with " + strings.Join(parts, ", ") + ")"
		}
		fmt.Fprintf(w, "%s: %s:%d%s\n", verdictText(d.Allowed), d.Service, d.Port, of)
		fmt.Fprintf(w, "  %s\n", reasonText(&d))
		if d.Nearest != "" {
			fmt.Fprintf(w, "  nearest: %s, %s: %s\n", d.Nearest, d.Near, strings.Join(d.Missing, "; "))
		}
		if d.Authorizer != "" {
			fmt.Fprintf(w, "  if its authorizer agrees: %s\n", d.Authorizer)
		}
		if d.Audit != "" {
			fmt.Fprintf(w, "  recorded for %s\n", d.Audit)
		}
		if d.Dry {
			fmt.Fprintf(w, "  in dry run: %s, %s\n", verdictText(!d.Allowed), becauseText(d.DryPolicy, d.DryRule, d.DryAbsent))
		}
		for _, n := range d.Notes {
			fmt.Fprintf(w, "  note: %s\n", n)
		}
	}
}

func verdictText(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// reasonText says what decides: "401, AuthenticationPolicy/default/cart jwt[0]: a token is required, ..." where it is no rule of a policy.
func reasonText(d *compile.Decision) string {
	if d.Why == "" {
		return becauseText(d.Policy, d.Rule, d.Absent)
	}
	text := d.Why
	if d.Policy != "" {
		text = d.Policy + ": " + text
	}
	if d.Status != 0 {
		text = strconv.Itoa(d.Status) + ", " + text
	}
	return text
}

func becauseText(policy, rule string, absent bool) string {
	switch {
	case absent:
		return "because nothing allows it"
	case policy == "":
		return "because no policy is about it"
	}
	return "by " + policy + ", " + rule
}
