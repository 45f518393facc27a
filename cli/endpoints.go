package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newEndpointsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "endpoints [SERVICE]", Short: "Print the endpoints behind services", Args: cobra.MaximumNArgs(1)}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sets := []httpapi.EndpointSet{}
		if err := listing(cmd, "/v1/endpoints", args, &sets); err != nil {
			return err
		}
		if len(args) == 1 && len(sets) == 0 {
			return unknownService(args[0])
		}
		return o.print(cmd, sets, func(w io.Writer) {
			row(w, "SERVICE", "WORKLOAD", "VERSION", "PORT", "ADDRESS", "HEALTH", "LEARNED")
			for _, s := range sets {
				for _, e := range s.Endpoints {
					row(w, s.Cluster, e.Workload, e.Version, e.Port, e.Address, e.Health, learnedText(e.Protocol))
				}
				if len(s.Endpoints) == 0 {
					row(w, s.Cluster, "(none)")
				}
			}
		})
	}
	return cmd
}

// learnedText answers what was learned of what an endpoint speaks, "" for nothing (it may be declared).
func learnedText(protocol string) string {
	if protocol == "unknown" {
		return ""
	}
	return strings.TrimPrefix(protocol, "learned-")
}

// unknownService says that a listing was narrowed to a service that is not there.
func unknownService(name string) error {
	return fmt.Errorf("there is no service %q: see 'tulle status'", name)
}

// listing reads a listing that can be narrowed to one service.
func listing(cmd *cobra.Command, path string, args []string, out any) error {
	c, err := clientOf(cmd)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		path += "?service=" + url.QueryEscape(args[0])
	}
	return c.call(cmd.Context(), http.MethodGet, path, nil, out)
}
