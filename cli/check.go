package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Check that this machine can run a mesh, and that the mesh on it is well", Args: cobra.NoArgs,
		Long: `Check what this machine allows (namespaces, packet filter, ports), whether the control plane answers, and the state of
every workload, and what the stored resources say about the same requests. Exits non-zero when anything is wrong: also when a resource
refers to what is not there, so that a condition of its status, which is named, is False.

With --strict it tells, before ports are made strict (AuthenticationPolicy, or spec.mtls of MeshConfig), who would be cut off: the
callers that have reached published ports in plaintext in the time that is looked at, as the proxies have told, with the time of the
last one and what to do. It exits non-zero when there is any. (A caller that calls more seldom than that is not seen.)`,
		Example: `  tulle check
  tulle check --strict --since 168h
  tulle check --strict --service reviews.shop`,
	}
	o := outputFlag(cmd)
	var strict strictFlags
	strict.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		if strict.on {
			return strict.check(cmd, c, o)
		}
		if cmd.Flags().Changed("since") || cmd.Flags().Changed("service") || cmd.Flags().Changed("namespace") {
			return errors.New("--since, --service and --namespace are about who would be cut off: write --strict as well")
		}
		var s httpapi.Status
		running := c.call(cmd.Context(), http.MethodGet, "/v1/status", nil, &s)
		list := checkMachine()
		if running != nil {
			list = append(list, checkPorts()...)
			list = append(list, check{What: "control plane", Message: running.Error()})
		} else {
			list = append(list, checkMesh(&s)...)
			objects, err := checkObjects(cmd, c)
			if err != nil {
				return err
			}
			list = append(list, objects...)
		}
		err = o.print(cmd, list, func(w io.Writer) {
			for _, c := range list {
				mark := "ok"
				if !c.OK {
					mark = "FAILED"
				} else if c.Warning {
					mark = "warning"
				}
				row(w, mark, c.What, c.Message)
			}
		})
		if err != nil {
			return err
		}
		bad := 0
		for _, c := range list {
			if !c.OK {
				bad++
			}
		}
		if bad > 0 {
			return fmt.Errorf("%d of %d checks failed", bad, len(list))
		}
		return nil
	}
	return cmd
}

// check is one thing that was looked at.
type check struct {
	What    string `json:"what"`
	OK      bool   `json:"ok"`
	Warning bool   `json:"warning,omitempty"` // it works, and may not be what is meant
	Message string `json:"message"`
}

// checkObjects looks for what contradicts each other, for objects that refer to what is not there, for policies that are not in force, and
// says which are and where.
func checkObjects(cmd *cobra.Command, c *client) (list []check, err error) {
	var found httpapi.Conflicts
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/conflicts", nil, &found); err != nil {
		return nil, err
	}
	for i := range found.Conflicts {
		one := &found.Conflicts[i]
		list = append(list, check{What: "conflict", OK: true, Warning: one.Warning(), Message: one.String()})
	}
	for _, n := range found.Policies {
		list = append(list, check{What: "policy " + n.Policy, OK: n.Reason == "PartlyRun", Message: n.Target + ": " + n.Message})
	}
	for i := range found.References {
		r := &found.References[i]
		one := check{What: "references", OK: r.Reason == "", Warning: true, Message: r.String()}
		if !one.OK {
			one.Message += " (" + r.Reason + ")"
		}
		list = append(list, one)
	}
	var tables []httpapi.RouteTable
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/routes", nil, &tables); err != nil {
		return nil, err
	}
	for _, t := range tables {
		fields := map[string][]string{} // by who says them
		add := func(v compile.Value) {
			if !slices.Contains(fields[v.From], v.Field) {
				fields[v.From] = append(fields[v.From], v.Field)
			}
		}
		for _, v := range t.Policies {
			add(v)
		}
		for _, name := range slices.Sorted(maps.Keys(t.RoutePolicies)) {
			for _, v := range t.RoutePolicies[name] {
				add(v)
			}
		}
		for _, from := range slices.Sorted(maps.Keys(fields)) {
			list = append(list, check{What: "policies of " + t.Name, OK: true, Message: from + ": " + strings.Join(fields[from], ", ")})
		}
	}
	return list, nil
}

// checkMachine tries what tulle run does: it makes the namespaces, opens the sockets and installs the packet
// filter, and ends them before any program starts.
func checkMachine() []check {
	rootless := netns.NeedUserNamespace()
	how := "as root"
	if rootless {
		how = "without root"
	}
	what := "run workloads (" + how + ")"
	n, err := netns.Start(netns.Config{Path: "/bin/true", Args: []string{"true"}, UserNamespace: rootless})
	if err == nil {
		_, _, err = n.Sockets()
		n.Abandon()
		n.Close()
	}
	if err != nil {
		stage := netns.StageClone
		if s, ok := errors.AsType[*netns.StageError](err); ok {
			stage = s.Stage
		}
		return []check{{What: what, Message: netns.Explain(err, stage, netns.ReadFacts(rootless))}}
	}
	return append([]check{{What: what, OK: true, Message: "network namespaces, packet filter and sockets work"}}, checkVsock()...)
}

// checkVsock tells of the one wire that no network namespace fences in. It is not taken from programs: a filter of system calls sees
// neither what is opened by io_uring nor by the 32-bit socketcall, so it would keep honest programs from it alone.
func checkVsock() []check {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return []check{{What: "vsock", OK: true, Warning: true, Message: "programs on this machine, workloads among them, can talk to its hypervisor's vsock services, and virtual machines on it to theirs: " +
		"where that is not wanted keep the kernel from loading vsock (modprobe.d: install vsock /bin/false), or run the virtual machine without it"}}
}

// checkPorts looks whether a control plane could be started.
func checkPorts() (list []check) {
	for _, address := range []string{control.DefaultHTTPListen, control.DefaultGRPCListen} {
		c := check{What: "port " + address, OK: true, Message: "is free"}
		l, err := net.Listen("tcp", address)
		if err != nil {
			c.OK, c.Message = false, "is in use: start 'tulle up' with --http-listen and --grpc-listen of your own"
		} else {
			l.Close()
		}
		list = append(list, c)
	}
	return list
}

func checkMesh(s *httpapi.Status) []check {
	list := []check{{What: "control plane", OK: true, Message: fmt.Sprintf("%s, process %d, up %s, revision %d", s.Control.Version, s.Control.PID, age(s.Control.Started, time.Now()), s.Revision)}}
	if mine := version(); mine != s.Control.Version {
		list = append(list, check{What: "version", Message: fmt.Sprintf("this binary is %s, the control plane is %s: restart it with this one", mine, s.Control.Version)})
	}
	if s.Rotation != nil {
		list = append(list, check{What: "rotation of the root", OK: true, Message: strings.ReplaceAll(rotationText(s.Rotation, time.Now()), "\n  ", "; ")})
	}
	for _, a := range s.Alarms {
		list = append(list, check{What: a.What, Message: a.Message})
	}
	if len(s.Alarms) == 0 {
		list = append(list, check{What: "certificates", OK: true, Message: "all are renewed in time ('tulle cert' shows them)"})
	}
	proxies := map[string]httpapi.Proxy{}
	for _, p := range s.Proxies {
		proxies[p.Workload] = p
	}
	for _, w := range s.Workloads {
		id := w.Namespace + "/" + w.Name
		c := check{What: "workload " + id, OK: w.State == "live" || w.State == "leaving", Message: w.State + " for " + age(w.Since, time.Now())}
		if w.State == "starting" {
			c.Message += ": its ready check has not passed, see its log"
		}
		if p := proxies[id]; p.Rejected != "" {
			c.OK, c.Message = false, "its proxy refused what it was sent: "+p.Rejected
		}
		list = append(list, c)
	}
	return list
}
