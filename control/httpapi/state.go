package httpapi

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/model"
)

// Bounds of waits and windows.
const (
	maxWait       = 10 * time.Minute
	maxWindow     = 10 * time.Minute
	defaultWindow = 10 * time.Second
	waitStep      = 20 * time.Millisecond
)

// serveControl answers what this process is and where it listens.
func (a *API) serveControl(*http.Request) (any, error) { return a.cfg.Info, nil }

func (a *API) serveStatus(r *http.Request) (any, error) {
	rev, err := a.cfg.Store.Revision(r.Context())
	if err != nil {
		return nil, err
	}
	s := Status{Control: a.cfg.Info, Revision: rev, Workloads: []Workload{}, Services: []Service{}}
	for _, w := range a.cfg.Registry.Workloads() {
		s.Workloads = append(s.Workloads, workload(w))
	}
	for _, v := range a.cfg.Registry.Services() {
		s.Services = append(s.Services, service(v))
	}
	if a.cfg.Trust != nil {
		s.Alarms = a.cfg.Trust.Alarms()
		if r := a.cfg.Trust.Rotation(); r.Phase != ca.Steady {
			s.Rotation = &r
		}
	}
	if a.cfg.Captures != nil {
		s.Alarms = append(s.Alarms, a.cfg.Captures()...)
	}
	if a.cfg.Proxies != nil {
		s.Proxies = a.cfg.Proxies()
	}
	return s, nil
}

func workload(w *registry.Workload) Workload {
	out := Workload{Name: w.Name, Namespace: w.Namespace, Service: w.Service, Version: w.Version, State: w.State.String(), Since: w.Since,
		Identity: w.Identity, Address: address(w.Address), Metrics: address(w.Metrics), PID: w.PID, Labels: w.Labels}
	for _, p := range w.Ports {
		text := portText(p.Name, p.Port, p.Protocol)
		if p.Target != p.Port && p.Target != 0 {
			text += "→" + strconv.Itoa(int(p.Target))
		}
		if p.Protocol == model.ProtocolUnknown && p.Learned != model.ProtocolUnknown {
			text += "/" + p.Learned.String()
		}
		out.Ports = append(out.Ports, text)
	}
	return out
}

func service(s *registry.Service) Service {
	out := Service{Name: s.Name.String(), Implicit: s.Implicit, Workloads: s.Workloads, Ports: []string{}}
	if s.VIP4.IsValid() {
		out.VIP4 = s.VIP4.String()
	}
	if s.VIP6.IsValid() {
		out.VIP6 = s.VIP6.String()
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, portText(p.Name, p.Port, p.Protocol))
	}
	return out
}

// portText answers "web=80/http".
func portText(name string, port uint16, protocol model.Protocol) string {
	text := strconv.Itoa(int(port))
	if name != "" && name != text {
		text = name + "=" + text
	}
	if protocol != model.ProtocolUnknown {
		text += "/" + protocol.String()
	}
	return text
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// wanted reports whether a listing that was narrowed to text ("cart", "cart.default" or "cart.default:80")
// holds name.
func wanted(text string, name model.PortName) bool {
	return text == "" || text == name.Service.Name || text == name.Service.String() || text == name.String()
}

// ports answers every port of every service that the request is about.
func (a *API) ports(r *http.Request) (list []model.PortName) {
	text := r.URL.Query().Get("service")
	for _, s := range a.cfg.Registry.Services() {
		for _, p := range s.Ports {
			if n := (model.PortName{Service: s.Name, Port: p.Port}); wanted(text, n) {
				list = append(list, n)
			}
		}
	}
	return list
}

func (a *API) serveEndpoints(r *http.Request) (any, error) {
	sets := []EndpointSet{}
	for _, name := range a.ports(r) {
		e, ok := a.cfg.Registry.Endpoints(name)
		if !ok {
			continue
		}
		if a.cfg.Compiler != nil {
			e = a.cfg.Compiler().Endpoints(e) // those of an ExternalService are written down
		}
		set := EndpointSet{Cluster: name.String(), Endpoints: []Endpoint{}}
		for _, p := range e.Endpoints {
			health := [...]string{"healthy", "draining", "stale"}[min(int(p.Health), 2)]
			set.Endpoints = append(set.Endpoints, Endpoint{Workload: strings.Trim(p.Namespace+"/"+p.Workload, "/"), Address: address(p.Address), Port: p.Port,
				Version: p.Version, Weight: p.Weight, Health: health, Protocol: p.Learned.String(), Identity: p.Identity})
		}
		if a.cfg.Compiler != nil {
			if c, ok := a.cfg.Compiler().Cluster(name); ok && c.Balancing.Shards != nil {
				shards(&set, e.Endpoints, c.Balancing.Shards)
			}
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// shards says who of a set owns which slots, and which nobody does.
func shards(set *EndpointSet, endpoints []model.Endpoint, o *model.Shards) {
	var owned []model.SlotRange
	for i := range endpoints {
		e := &endpoints[i]
		for _, l := range e.Labels {
			if l.Name != o.Label {
				continue
			}
			set.Endpoints[i].Shards = l.Value
			ranges, err := model.ParseShards(l.Value, o.Slots)
			if err != nil {
				set.Endpoints[i].ShardsError = err.Error()
			}
			if e.Health != model.Draining {
				owned = append(owned, ranges...)
			}
		}
	}
	for _, r := range model.Unowned(o.Slots, owned) {
		set.Unowned = append(set.Unowned, r.String())
	}
}

func (a *API) serveRoutes(r *http.Request) (any, error) {
	if a.cfg.RouteTables == nil {
		return nil, missing("routes")
	}
	tables := []RouteTable{}
	for _, name := range a.ports(r) {
		for _, t := range a.cfg.RouteTables(name) {
			out := RouteTable{Name: t.ResourceName(), Routes: t.Routes, Relay: t.Relay}
			a.policies(name, &out)
			tables = append(tables, out)
		}
	}
	return tables, nil
}

func (a *API) serveStat(r *http.Request) (any, error) {
	if a.cfg.Edges == nil {
		return nil, missing("what flows")
	}
	window := time.Duration(0)
	if r.URL.Query().Get("window") != "total" {
		var err error
		if window, err = duration(r, "window", defaultWindow, maxWindow); err != nil {
			return nil, err
		}
	}
	edges, err := a.cfg.Edges(r.Context(), window)
	return Stat{Window: window, Edges: edges}, err
}

// serveWait answers when a revision (of the request, else the present one) is enforced by every proxy, or
// when the timeout is over. It asks again and again: what is asked is a handful of numbers in memory, and a
// wait is rare.
func (a *API) serveWait(r *http.Request) (any, error) {
	if a.cfg.Behind == nil {
		return nil, missing("what proxies enforce")
	}
	timeout, err := duration(r, "timeout", time.Minute, maxWait)
	if err != nil {
		return nil, err
	}
	rev, err := a.cfg.Store.Revision(r.Context())
	if err != nil {
		return nil, err
	}
	if text := r.URL.Query().Get("revision"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 || n > rev {
			return nil, bad("revision %q is not one of this store, which is at %d", text, rev)
		}
		rev = n
	}
	deadline, step := time.NewTimer(timeout), time.NewTicker(waitStep)
	defer deadline.Stop()
	defer step.Stop()
	for {
		late := a.cfg.Behind(rev)
		if len(late) == 0 {
			return WaitResult{Revision: rev, Enforced: true}, nil
		}
		select {
		case <-step.C:
		case <-deadline.C:
			return WaitResult{Revision: rev, Stragglers: late}, nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func duration(r *http.Request, name string, value, most time.Duration) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return value, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > most {
		return 0, bad("%s %q is not a duration of at most %s", name, text, most)
	}
	return d, nil
}

func (a *API) serveTokens(r *http.Request) (any, error) {
	return a.cfg.Tokens.List(r.Context(), a.cfg.Now())
}

// Issued is a new join token.
type Issued struct {
	Token string `json:"token"`
	token.Info
}

func (a *API) serveIssue(r *http.Request) (any, error) {
	var req TokenRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	text, info, err := a.cfg.Tokens.Issue(r.Context(), token.Spec(req), a.cfg.Now())
	if err != nil {
		return nil, bad("%s", err)
	}
	return Issued{Token: text, Info: info}, nil
}

func (a *API) serveRevoke(r *http.Request) (any, error) {
	id := strings.ToLower(r.PathValue("id"))
	return map[string]string{"revoked": id}, a.cfg.Tokens.Revoke(r.Context(), id)
}

func (a *API) serveUnbind(r *http.Request) (any, error) {
	b := token.Binding{Namespace: r.PathValue("namespace"), ServiceAccount: r.PathValue("account"), Services: []string{r.PathValue("service")}}
	return b, a.cfg.Tokens.Unbind(r.Context(), b.Namespace, b.ServiceAccount, b.Services[0])
}
