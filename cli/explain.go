package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/proxy/admin"
)

// explainFlags are those of tulle explain.
type explainFlags struct {
	service        string
	last           int
	denied, failed bool
}

// proxyPatience bounds the wait for one proxy's answer.
const proxyPatience = 5 * time.Second

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use: "explain [REQUEST-ID]", Short: "Say why requests went where they went, waited, failed or were denied", Args: cobra.MaximumNArgs(1),
		Long: `Say what the proxies of this machine remember of a request, by its x-request-id, or of the last ones: which route and rule took it, which
policy and rule decided and, where nothing allowed it, the nearest rule and what was missing; every attempt with its endpoint, its wait and why
it failed; and how long each part took. The caller's proxy and the server's each tell what they saw, one below the other. Each loop of a proxy
remembers its last 128 exchanges and connections, and 64 of those that failed or were denied; without a request id those that still run are not told.`,
		Example: `  tulle explain 4f1c9b1e2d7a4c55
  tulle explain --service reviews --last 5 --denied`,
	}
	o := outputFlag(cmd)
	cmd.Flags().StringVar(&f.service, "service", "", "only to or from one `service` (reviews, reviews.shop)")
	cmd.Flags().IntVar(&f.last, "last", 10, "at most so `many` requests")
	cmd.Flags().BoolVar(&f.denied, "denied", false, "only what policies have denied, or would if they were not in dry run")
	cmd.Flags().BoolVar(&f.failed, "failed", false, "only what failed or was denied")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := ""
		if len(args) == 1 {
			id = args[0]
		}
		list, err := f.gather(cmd, id)
		if err != nil {
			return err
		}
		if len(list) == 0 && id != "" {
			return fmt.Errorf("no proxy of this machine remembers request %s: it was too long ago, or it was not seen here", id)
		}
		return o.print(cmd, list, func(w io.Writer) { printExplained(w, list) })
	}
	return cmd
}

// gather asks every proxy of the data folder, and puts together what is of the same request.
func (f *explainFlags) gather(cmd *cobra.Command, id string) ([]admin.Explained, error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return nil, err
	}
	if f.last < 1 {
		return nil, errors.New("--last: write a number from 1 on")
	}
	sockets, err := filepath.Glob(filepath.Join(filepath.Dir(bootstrap.AdminSocket(dir, "n", "w")), "*.sock"))
	if err != nil {
		return nil, err
	}
	q := url.Values{"id": {id}, "last": {strconv.Itoa(1 << 20)}} // all: what one proxy has denied, the other one has only passed on
	all := []admin.Explained{}
	answered := 0
	for _, s := range sockets {
		list, err := askProxy(cmd.Context(), s, q)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s does not answer: %s\n", cmd.CommandPath(), filepath.Base(s), err)
			continue
		}
		answered++
		all = append(all, list...)
	}
	if answered == 0 {
		return nil, fmt.Errorf("no proxy answers in %s: start a workload with 'tulle run', or name another folder with --data-dir", dir)
	}
	return f.choose(all), nil
}

// askProxy asks one proxy at its admin socket.
func askProxy(ctx context.Context, socket string, q url.Values) (out []admin.Explained, err error) {
	ctx, cancel := context.WithTimeout(ctx, proxyPatience)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/explain?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s: upgrade it with 'tulle upgrade'", resp.Status)
	}
	return out, json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out)
}

// wanted reports whether one proxy's view is of a request that is asked for.
func (f *explainFlags) wanted(e admin.Explained) bool {
	denied := e.Decision != nil && (e.Decision.Verdict == "denied" || e.Decision.Dry == "denied")
	return (!f.denied || denied) && (!f.failed || denied || e.Reason != "" || e.Status >= 500)
}

// choose answers the last requests, of each the caller's view before the server's, the newest request first.
func (f *explainFlags) choose(all []admin.Explained) []admin.Explained {
	about := func(e *admin.Explained) bool {
		for _, s := range []string{e.Service + "." + e.Namespace, e.Source, e.Destination} {
			if s == f.service || strings.HasPrefix(s, f.service+".") && !strings.Contains(f.service, ".") {
				return true
			}
		}
		return f.service == ""
	}
	groups := map[string][]admin.Explained{}
	var keys []string
	for i, e := range all {
		if !about(&e) {
			continue
		}
		k := cmp.Or(e.Request, fmt.Sprintf("#%d", i)) // a relayed connection has no id
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], e)
	}
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b admin.Explained) int {
			return cmp.Or(cmp.Compare(b.Direction, a.Direction), a.Began.Compare(b.Began))
		})
	}
	slices.SortStableFunc(keys, func(a, b string) int { return groups[b][0].Began.Compare(groups[a][0].Began) })
	keys = slices.DeleteFunc(keys, func(k string) bool { return !slices.ContainsFunc(groups[k], f.wanted) })
	out := []admin.Explained{}
	for _, k := range keys[:min(len(keys), f.last)] {
		out = append(out, groups[k]...)
	}
	return out
}
