package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
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
			header := []any{"SERVICE", "WORKLOAD", "VERSION", "PORT", "ADDRESS", "HEALTH", "LEARNED"}
			if slices.ContainsFunc(sets, sharded) {
				header = append(header, "SHARDS")
			}
			row(w, header...)
			for _, s := range sets {
				for _, e := range s.Endpoints {
					cells := []any{s.Cluster, e.Workload, e.Version, e.Port, e.Address, e.Health, learnedText(e.Protocol)}
					switch {
					case e.ShardsError != "":
						cells = append(cells, "none: "+e.ShardsError)
					case e.Shards != "":
						cells = append(cells, e.Shards)
					}
					row(w, cells...)
				}
				if len(s.Endpoints) == 0 {
					row(w, s.Cluster, "(none)")
				}
			}
			for _, s := range sets {
				if len(s.Unowned) > 0 {
					fmt.Fprintf(w, "warning: nobody owns shards %s of %s\n", several(s.Unowned), s.Cluster)
				}
			}
		})
	}
	return cmd
}

// sharded reports whether a port has shards, as far as anybody owns one or some are missing.
func sharded(s httpapi.EndpointSet) bool {
	return len(s.Unowned) > 0 || slices.ContainsFunc(s.Endpoints, func(e httpapi.Endpoint) bool { return e.Shards != "" })
}

// several joins the first of many.
func several(list []string) string {
	const most = 8
	if len(list) > most {
		return fmt.Sprintf("%s and %d more ranges", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
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
