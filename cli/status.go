package cli

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Print the control plane, services and workloads", Args: cobra.NoArgs}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var s httpapi.Status
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/status", nil, &s); err != nil {
			return err
		}
		return o.print(cmd, s, func(w io.Writer) { statusTables(w, &s) })
	}
	return cmd
}

func statusTables(w io.Writer, s *httpapi.Status) {
	now := time.Now()
	fmt.Fprintf(w, "control plane %s, process %d, up %s, %s, revision %d, trust domain %s\nAPI http://%s, proxies %s, data %s\n",
		s.Control.Version, s.Control.PID, age(s.Control.Started, now), s.Control.Store, s.Revision, s.Control.TrustDomain,
		s.Control.HTTP, s.Control.GRPC, s.Control.DataDir)
	if s.Rotation != nil {
		fmt.Fprintln(w, rotationText(s.Rotation, now))
	}
	for _, a := range s.Alarms {
		fmt.Fprintf(w, "ALARM: %s: %s\n", a.What, a.Message)
	}
	if len(s.Services)+len(s.Workloads) == 0 {
		fmt.Fprintln(w, "\nno workloads yet: start one with 'tulle run --service NAME --port PORT -- COMMAND'")
		return
	}
	fmt.Fprintln(w)
	row(w, "SERVICE", "ADDRESS", "PORTS", "WORKLOADS")
	for _, v := range s.Services {
		row(w, v.Name, v.VIP4, strings.Join(v.Ports, ","), v.Workloads)
	}
	enforced := map[string]httpapi.Proxy{}
	for _, p := range s.Proxies {
		enforced[p.Workload] = p
	}
	fmt.Fprintln(w)
	row(w, "WORKLOAD", "SERVICE", "VERSION", "STATE", "SINCE", "PORTS", "PROXY", "PID")
	for _, k := range s.Workloads {
		pid := ""
		if k.PID > 0 {
			pid = fmt.Sprint(k.PID)
		}
		row(w, k.Namespace+"/"+k.Name, k.Service, k.Version, k.State, age(k.Since, now), strings.Join(k.Ports, ","),
			proxyState(enforced, k.Namespace+"/"+k.Name), pid)
	}
}

// proxyState says whether a workload's proxy follows the configuration of what it calls, and what it refused.
// One whose workload has called nobody yet asks for nothing.
func proxyState(proxies map[string]httpapi.Proxy, workload string) string {
	p, ok := proxies[workload]
	switch {
	case !ok:
		return "not connected"
	case p.Rejected != "":
		return "rejected: " + p.Rejected
	}
	return fmt.Sprintf("%d resources", p.Resources)
}

func sorted(list []string) string {
	slices.Sort(list)
	return strings.Join(list, ",")
}
