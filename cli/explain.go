package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/model/flight"
)

// explainFlags are those of tulle explain.
type explainFlags struct{ flight.Choice }

// proxyPatience bounds the wait for one proxy's answer.
const proxyPatience = 5 * time.Second

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use: "explain [REQUEST-ID]", Short: "Say why requests went where they went, waited, failed or were denied", Args: cobra.MaximumNArgs(1),
		Long: `Say what the proxies of the mesh remember of a request, by its x-request-id, or of the last ones: which route and rule took it, which
policy and rule decided and, where nothing allowed it, the nearest rule and what was missing; every attempt with its endpoint, its wait and why
it failed; and how long each part took. The caller's proxy and the server's each tell what they saw, one below the other. Each loop of a proxy
remembers its last 128 exchanges and connections, and 64 of those that failed or were denied; without a request id those that still run are not told.
The control plane asks every proxy that is connected to it, wherever it runs; who did not answer is named. Where no control plane answers,
the proxies of this machine are asked.`,
		Example: `  tulle explain 4f1c9b1e2d7a4c55
  tulle explain --service reviews --last 5 --denied`,
	}
	o := outputFlag(cmd)
	cmd.Flags().StringVar(&f.Service, "service", "", "only to or from one `service` (reviews, reviews.shop)")
	cmd.Flags().IntVar(&f.Last, "last", 10, "at most so `many` requests")
	cmd.Flags().BoolVar(&f.Denied, "denied", false, "only what policies have denied, or would if they were not in dry run")
	cmd.Flags().BoolVar(&f.Failed, "failed", false, "only what failed or was denied")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := ""
		if len(args) == 1 {
			id = args[0]
		}
		found, err := f.gather(cmd, id)
		if err != nil {
			return err
		}
		for _, s := range found.Silent {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s is not asked: %s\n", cmd.CommandPath(), s.Workload, s.Why)
		}
		if len(found.Of) == 0 && id != "" {
			return fmt.Errorf("none of the %d proxies that were asked remembers request %s: it was too long ago, or it did not come by them", found.Asked, id)
		}
		return o.print(cmd, found.Of, func(w io.Writer) { printExplained(w, found.Of) })
	}
	return cmd
}

// gather asks the control plane, which asks every proxy; where none answers, the proxies of this machine are asked.
func (f *explainFlags) gather(cmd *cobra.Command, id string) (flight.Found, error) {
	if f.Last < 1 {
		return flight.Found{}, errors.New("--last: write a number from 1 on")
	}
	c, err := clientOf(cmd)
	if err != nil {
		return flight.Found{}, err
	}
	q := httpapi.ExplainQuery{ID: id, Choice: f.Choice}
	var out flight.Found
	err = c.call(cmd.Context(), http.MethodGet, "/v1/explain?"+q.Values().Encode(), nil, &out)
	if !errors.Is(err, errNobody) {
		return out, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s; only the proxies of this machine are asked\n", cmd.CommandPath(), err)
	return f.here(cmd, id)
}

// here asks every proxy of the data folder, and puts together what is of the same request.
func (f *explainFlags) here(cmd *cobra.Command, id string) (out flight.Found, err error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return out, err
	}
	sockets, err := filepath.Glob(filepath.Join(filepath.Dir(bootstrap.AdminSocket(dir, "n", "w")), "*.sock"))
	if err != nil {
		return out, err
	}
	q := url.Values{"id": {id}, "last": {strconv.Itoa(flight.MaxLast)}} // all: what one proxy has denied, the other one has only passed on
	var all []flight.Explained
	for _, s := range sockets {
		list, err := askProxy(cmd.Context(), s, q)
		if err != nil {
			out.Silent = append(out.Silent, flight.Silent{Workload: filepath.Base(s), Why: err.Error()})
			continue
		}
		out.Asked++
		all = append(all, list...)
	}
	if out.Asked == 0 {
		return out, fmt.Errorf("no proxy answers in %s: start a workload with 'tulle run', or name another folder with --data-dir", dir)
	}
	out.Of = f.Choose(all)
	return out, nil
}

// askProxy asks one proxy at its admin socket.
func askProxy(ctx context.Context, socket string, q url.Values) (out []flight.Explained, err error) {
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
