package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/telemetry"
)

func newStatCommand() *cobra.Command {
	var window time.Duration
	cmd := &cobra.Command{
		Use:   "stat",
		Short: "Print what flows: success, rate and latency of every edge",
		Long: `Print what flowed in the last seconds from service to service, as the caller's proxy saw it. For plain TCP a
request is a connection that ended.`,
		Args: cobra.NoArgs,
	}
	o := outputFlag(cmd)
	cmd.Flags().DurationVarP(&window, "window", "w", 10*time.Second, "how long to look back")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if window < time.Second {
			return errors.New("--window must be 1s or more")
		}
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var s httpapi.Stat
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/stat?window="+window.String(), nil, &s); err != nil {
			return err
		}
		list := statLines(s)
		return o.print(cmd, list, func(w io.Writer) {
			row(w, "SOURCE", "DESTINATION", "ROUTE", "SUCCESS", "RPS", "P50", "P95", "P99", "MTLS")
			for _, l := range list {
				row(w, l.Source, l.Destination, l.Route, fmt.Sprintf("%.2f%%", 100*l.Success), fmt.Sprintf("%.1f", l.RPS),
					milliseconds(l.P50), milliseconds(l.P95), milliseconds(l.P99), yesNo(l.MTLS))
			}
			if len(list) == 0 {
				fmt.Fprintf(w, "nothing flowed in the last %s\n", s.Window)
			}
		})
	}
	return cmd
}

// statLine is one edge as it is printed; times are in milliseconds.
type statLine struct {
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Port        uint16  `json:"port"`
	Route       string  `json:"route,omitempty"`
	Protocol    string  `json:"protocol"`
	Requests    uint64  `json:"requests"`
	Failures    uint64  `json:"failures"`
	Success     float64 `json:"success"`
	RPS         float64 `json:"rps"`
	P50         float64 `json:"p50_ms"`
	P95         float64 `json:"p95_ms"`
	P99         float64 `json:"p99_ms"`
	MTLS        bool    `json:"mtls"`
}

// statLines picks the side that saw an edge whole: the caller's, and the server's for callers outside the mesh.
func statLines(s httpapi.Stat) []statLine {
	var seen []telemetry.Edge
	for _, e := range s.Edges {
		if e.Direction == "outbound" || e.Source == telemetry.Outside {
			seen = append(seen, e)
		}
	}
	list := []statLine{}
	for _, e := range telemetry.MergeEdges(seen, func(k *telemetry.EdgeKey) { k.Backend = "" }) {
		ms := func(q float64) float64 { return float64(e.Quantile(q).Microseconds()) / 1000 }
		count := e.Requests
		if count == 0 {
			count = e.Opened
		}
		if count == 0 {
			continue
		}
		list = append(list, statLine{Source: e.Source, Destination: e.Destination, Port: e.Port, Route: e.Route, Protocol: e.Protocol,
			Requests: count, Failures: e.Failures, Success: 1 - float64(e.Failures)/float64(count), RPS: float64(count) / s.Window.Seconds(),
			P50: ms(0.5), P95: ms(0.95), P99: ms(0.99), MTLS: e.MTLS})
	}
	return list
}

func milliseconds(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.3gms", v)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
