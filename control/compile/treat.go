package compile

import (
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// How each part of a policy becomes what runs. Defaults are those that package v1alpha1 has written out.

// Budget of retries where nobody says otherwise: docs/design/traffic.md, Amplification.
const (
	BudgetPercent = 20
	BudgetLeast   = 10
)

// treatCluster puts what policies say about a port into its cluster.
func (c Compiler) treatCluster(m *model.Cluster) {
	t := c.ServiceTreatment(m.Name)
	m.Budget = model.Budget{Percent: BudgetPercent, Least: BudgetLeast}
	if b := t.RetryBudget; b != nil {
		m.Budget = model.Budget{Percent: uint32(*b.Percent), Least: uint32(*b.Least)}
	}
	if b := t.Balancing; b != nil {
		m.Balancing = balancing(b)
	}
	if b := t.Breakers; b != nil {
		m.Breakers[model.PriorityDefault] = breakers(b)
	}
	if e := t.Ejection; e != nil {
		m.Outlier = outlier(e)
	}
	for i := range t.HealthChecks {
		m.HealthChecks = append(m.HealthChecks, healthCheck(&t.HealthChecks[i]))
	}
	if p := t.Connections; p != nil {
		connections(m, p)
	}
}

// treatTable puts what policies say into a port's table, and into each of its routes.
func (c Compiler) treatTable(t *model.RouteTable) {
	for i := range t.Routes {
		c.treatRoute(t.Name, &t.Routes[i])
	}
	about := c.ServiceTreatment(t.Name)
	t.Classes = classes(about.Priority, t.Name.Service.Namespace)
	in := &model.Inbound{}
	if p := about.Capacity; p != nil {
		in.MaxConnections, in.MaxRequests = uint32(p.Connections), uint32(p.Requests)
	}
	if p := about.Concurrency; p != nil {
		in.Adaptive = &model.Adaptive{Least: uint32(p.Least), Most: uint32(p.Most), Queue: p.Queue.Value(), Fair: fair(p.Fairness, t.Name.Service.Namespace)}
	}
	out, outside := &model.Inbound{}, &model.Inbound{}
	for i := range about.RateLimits {
		one := &about.RateLimits[i]
		to := map[string]*model.Inbound{"Caller": out, "Outside": outside}[one.Side]
		if to == nil {
			to = in
		}
		l := rateLimit(one, t.Name.Service.Namespace)
		if one.Connections > 0 {
			to.ConnectionRate = &l
		} else {
			to.Limits = append(to.Limits, l)
		}
	}
	if out.Limits != nil || out.ConnectionRate != nil {
		t.Outbound = out
	}
	if outside.Limits != nil || outside.ConnectionRate != nil {
		t.Outside = outside
	}
	if in.Adaptive != nil || in.MaxConnections+in.MaxRequests > 0 || in.Limits != nil || in.ConnectionRate != nil {
		t.Inbound = in
	}
}

// treatRoute puts what policies say into a route. What the route says itself stays.
func (c Compiler) treatRoute(table model.PortName, r *model.Route) {
	only := c.routeOnly(r)
	if b := only.Breakers; b != nil { // those of the service are the cluster's
		out := breakers(b)
		r.Breakers = &out
	}
	for i := range only.RateLimits {
		r.Limits = append(r.Limits, rateLimit(&only.RateLimits[i], table.Service.Namespace))
	}
	r.Sticky = hash(only.Sticky)
	t := c.RouteTreatment(table, r)
	r.Hash = hash(t.Hash)
	if p := t.Timeouts; p != nil {
		r.Timeouts.Request, r.Timeouts.Attempt = p.Request.Value(), p.Attempt.Value()
		r.Timeouts.Idle, r.Timeouts.MaxStream = p.Idle.Value(), p.Stream.Value()
		if r.Timeouts.Request > 0 && r.Timeouts.Attempt > r.Timeouts.Request {
			r.Timeouts.Attempt = 0 // of different policies: the request's ends it anyway
		}
	}
	if p := t.Retries; p != nil { // none where the route says it itself
		r.Retry = retry(p)
	}
	if p := t.Hedging; p != nil {
		r.Hedge = &model.Hedge{After: p.After.Value(), Quantile: uint32(p.Quantile*10 + 0.5), Most: uint32(p.Most)}
	}
	if p := t.Session; p != nil {
		r.Session = session(p)
	}
	if p := t.Fallback; p != nil {
		r.Fallback = c.fallback(table, p)
	}
}

func (c Compiler) exists(name model.PortName) bool {
	s, ok := c.Services.Service(name.Service)
	if ok {
		_, ok = s.FindPort(name.Port)
	}
	return ok
}

func balancing(b *v1alpha1.Balancing) model.Balancing {
	panicAt := float64(*b.Panic)
	out := model.Balancing{Policy: policyOf(b.Policy), ChoiceCount: uint32(b.Choices), TableSize: uint64(b.Table), Panic: &panicAt}
	if r := b.Ring; r != nil {
		out.MinRing, out.MaxRing = uint64(r.Minimum), uint64(r.Maximum)
	}
	if e := b.EWMA; e != nil {
		out.EWMA = model.EWMA{Decay: e.Decay.Value(), Start: e.Start.Value()}
	}
	if u := b.Utilization; u != nil {
		out.Utilization = model.Utilization{Blackout: u.Blackout.Value(), Expiry: u.Expiry.Value(), Update: u.Update.Value(), ErrorPenalty: float64(*u.ErrorPenalty) / 100}
		if *u.ErrorPenalty == 0 {
			out.Utilization.ErrorPenalty = -1 // none; 0 is the default
		}
		out.Utilization.Blackout = max(out.Utilization.Blackout, 1) // likewise
	}
	if s := b.SlowStart; s != nil {
		out.SlowStart = model.SlowStart{Window: s.Window.Value(), Aggression: s.Aggression, Least: float64(s.Least)}
	}
	if l := b.Locality; l != nil {
		out.Locality.Mode = map[string]model.LocalityMode{"Ignore": model.LocalityIgnore, "Prefer": model.LocalityPrefer, "Weighted": model.LocalityWeighted}[l.Mode]
		out.Locality.SpillAt, out.Locality.Labels = uint32(l.SpillAt), l.Labels
		for _, f := range l.Failover {
			out.Locality.Failover = append(out.Locality.Failover, model.Failover(f))
		}
	}
	if s := b.Shards; s != nil {
		out.Shards = &model.Shards{Slots: uint32(s.Slots), Label: s.Label, Any: s.Otherwise == "Any"}
	}
	return out
}

func policyOf(name string) model.LBPolicy {
	return map[string]model.LBPolicy{"LeastRequest": model.LeastRequest, "RoundRobin": model.RoundRobin, "Random": model.Random,
		"RingHash": model.RingHash, "Maglev": model.Maglev, "PeakEWMA": model.PeakEWMA, "LeastUtilized": model.LeastUtilized}[name]
}

// Endpoints answers a port's endpoints with the shares that a policy gives their localities.
func (c Compiler) Endpoints(e *model.Endpoints) *model.Endpoints {
	if static := c.staticEndpoints(e.Cluster); static != nil {
		with := *e
		with.Endpoints, e = static, &with
	}
	b := c.ServiceTreatment(e.Cluster).Balancing
	if b == nil || b.Locality == nil || len(b.Locality.Weights) == 0 {
		return e
	}
	out := *e
	out.Localities = nil
	for _, w := range b.Locality.Weights {
		out.Localities = append(out.Localities, model.LocalityWeight{Locality: w.Locality, Weight: uint32(w.Weight)})
	}
	return &out
}

func breakers(b *v1alpha1.Breakers) model.Breakers {
	n := func(p *int32) uint32 {
		if p == nil {
			return 0
		}
		return uint32(*p)
	}
	return model.Breakers{Connections: n(b.Connections), Pending: n(b.Pending), Requests: n(b.Requests), Retries: n(b.Retries)}
}

// outlier: what is decided to be an outlier is ejected, always; Envoy's percentages of enforcement are not for users.
func outlier(e *v1alpha1.Ejection) *model.Outlier {
	out := &model.Outlier{
		Consecutive5xx: uint32(*e.Consecutive5xx), ConsecutiveGateway: uint32(*e.ConsecutiveGateway),
		Interval: e.Interval.Value(), BaseEjection: e.Base.Value(), MaxEjection: e.Maximum.Value(),
		MaxPercent: uint32(*e.MaxPercent), AlwaysOne: true, Enforce5xx: 100, EnforceGateway: 100,
	}
	if s := e.SuccessRate; s != nil {
		out.EnforceSuccessRate, out.SuccessMinimumHosts, out.SuccessRequestVolume = 100, uint32(s.MinimumHosts), uint32(s.MinimumRequests)
		out.SuccessStdevFactor = uint32(s.Deviations*1000 + 0.5)
	}
	if l := e.Latency; l != nil {
		out.LatencyFactor, out.LatencyLeast = l.Factor, l.Least.Value()
		out.LatencyMinimumHosts, out.LatencyRequestVolume = uint32(l.MinimumHosts), uint32(l.MinimumRequests)
	}
	out.Probe, out.Learned = *e.Probe, *e.Probe
	if f := e.FailurePercent; f != nil {
		out.EnforceFailurePercent, out.FailureThreshold = 100, uint32(f.Threshold)
		out.FailureMinimumHosts, out.FailureRequestVolume = uint32(f.MinimumHosts), uint32(f.MinimumRequests)
	}
	return out
}

func healthCheck(h *v1alpha1.HealthCheck) model.HealthCheck {
	out := model.HealthCheck{
		Timeout: h.Timeout.Value(), Interval: h.Interval.Value(), NoTrafficInterval: h.NoTraffic.Value(), Jitter: h.Jitter.Value(),
		UnhealthyThreshold: uint32(h.Unhealthy), HealthyThreshold: uint32(h.Healthy), ReuseConnection: true,
	}
	switch {
	case h.HTTP != nil:
		out.Kind, out.Path, out.Method, out.Host = model.CheckHTTP, h.HTTP.Path, h.HTTP.Method, h.HTTP.Host
		for _, r := range h.HTTP.Statuses {
			out.Statuses = append(out.Statuses, model.StatusRange{From: int(r.From), To: int(r.To) + 1})
		}
	case h.GRPC != nil:
		out.Kind, out.Service = model.CheckGRPC, h.GRPC.Service
	default:
		out.Kind = model.CheckTCP
		if h.TCP.Send != "" {
			out.Send = []byte(h.TCP.Send)
		}
		for _, s := range h.TCP.Receive {
			out.Receive = append(out.Receive, []byte(s))
		}
	}
	return out
}

func connections(m *model.Cluster, p *v1alpha1.Connections) {
	if d := p.ConnectTimeout.Value(); d > 0 {
		m.ConnectTimeout = d
	}
	m.IdleTimeout, m.MaxDuration = p.IdleTimeout.Value(), p.MaxDuration.Value()
	if p.MaxRequests != nil {
		m.MaxRequests = uint32(*p.MaxRequests)
	}
	m.CloseOnHealthFailure = p.CloseOnFailure != nil && *p.CloseOnFailure
	if h := p.HTTP2; h != nil {
		m.Upstream.HTTP2 = model.HTTP2Options{MaxStreams: uint32(h.MaxStreams), Window: uint32(h.Window), ConnectionWindow: uint32(h.ConnectionWindow),
			KeepAlive: h.KeepAlive.Value(), KeepAliveTimeout: h.KeepAliveTimeout.Value()}
	}
}

func hash(keys []v1alpha1.HashKey) (out []model.HashKey) {
	for _, k := range keys {
		m := model.HashKey{Terminal: k.Terminal}
		switch {
		case k.Header != "":
			m.Kind, m.Name = model.HashHeader, strings.ToLower(k.Header)
		case k.Cookie != nil:
			m.Kind, m.Name, m.TTL, m.Generate, m.Path = model.HashCookie, k.Cookie.Name, k.Cookie.TTL.Value(), k.Cookie.TTL != "", k.Cookie.Path
		case k.Query != "":
			m.Kind, m.Name = model.HashQuery, k.Query
		case k.Path != "":
			m.Kind, m.Name = model.HashPath, k.Path
		default:
			m.Kind = model.HashSourceIP
		}
		out = append(out, m)
	}
	return out
}

func retry(r *v1alpha1.Retries) *model.Retry {
	out := &model.Retry{Attempts: uint32(*r.Attempts), AnyMethod: r.AnyMethod, RetryAfter: r.RetryAfter.Value(), OtherHosts: !r.SameHost}
	for _, on := range r.When {
		out.On |= map[string]model.RetryOn{"untouched": model.RetryUntouched, "reset": model.RetryReset, "timeout": model.RetryTimeout,
			"gateway": model.RetryGateway, "5xx": model.Retry5xx, "conflict": model.Retry4xx}[on]
	}
	for _, s := range r.Statuses {
		out.On |= model.RetryStatuses
		out.Statuses = append(out.Statuses, uint16(s))
	}
	for _, name := range r.GRPC {
		out.On |= model.RetryGRPC
		out.GRPC |= 1 << slices.Index(v1alpha1.GRPCStatuses(), name)
	}
	if w := r.Wait; w != nil {
		out.Base, out.Max, out.Least = w.Base.Value(), w.Maximum.Value(), w.Least.Value()
	}
	return out
}

func session(s *v1alpha1.Session) *model.Session {
	out := &model.Session{Lifetime: s.Lifetime.Value(), Absolute: s.Absolute.Value(), Idle: s.Idle.Value()}
	if s.Type == "Header" {
		out.Header = strings.ToLower(s.Name)
	} else {
		out.Cookie, out.Path = s.Name, s.Path
	}
	return out
}

func classes(list []v1alpha1.PriorityRule, namespace string) (out []model.ClassRule) {
	for _, r := range list {
		c := model.ClassRule{Match: model.Match{Path: "/"}, Class: map[string]model.Class{"critical": model.ClassCritical, "batch": model.ClassBatch}[r.Class]}
		if r.Match != nil {
			c.Match = match(*r.Match)
		}
		for _, f := range r.From {
			if !strings.Contains(f, ".") {
				f += "." + namespace
			}
			c.From = append(c.From, f)
		}
		out = append(out, c)
	}
	return out
}

func rateLimit(l *v1alpha1.RateLimit, namespace string) model.RateLimit {
	out := model.RateLimit{Name: l.Name, Requests: uint32(max(l.Requests, l.Bytes, l.Connections)), Window: l.Window.Value(), Burst: uint32(l.Burst),
		Bytes: l.Bytes > 0, Headers: l.Headers, Status: int(l.Status), Shadow: l.Shadow}
	if l.Match != nil {
		m := match(*l.Match)
		out.Match = &m
	}
	out.By = rateKeys(l.By)
	if g := l.Global; g != nil {
		out.Global = &model.GlobalLimit{Domain: g.Domain, Timeout: max(g.Timeout.Value(), time.Millisecond), Closed: g.FailClosed}
		if g.Service != "" {
			out.Global.Cluster = model.PortName{Service: model.ServiceName{Namespace: namespace, Name: g.Service}, Port: uint16(g.Port)}
		}
	}
	return out
}

func rateKeys(by []v1alpha1.RateKey) (out []model.RateKey) {
	for _, k := range by {
		m := model.RateKey{Key: k.Key}
		switch {
		case k.Caller:
			m.Kind = model.RateByCaller
		case k.Address:
			m.Kind = model.RateByAddress
		case k.Header != "":
			m.Kind, m.Name = model.RateByHeader, strings.ToLower(k.Header)
		case k.Path:
			m.Kind = model.RateByPath
		case k.Method:
			m.Kind = model.RateByMethod
		default:
			m.Kind, m.Value = model.RateByFixed, k.Value
		}
		out = append(out, m)
	}
	return out
}

func fair(f *v1alpha1.Fairness, namespace string) *model.Fair {
	if f == nil {
		return nil
	}
	out := &model.Fair{}
	for _, k := range f.By {
		switch {
		case k.Caller:
			out.By = append(out.By, model.RateKey{Kind: model.RateByCaller})
		case k.Address:
			out.By = append(out.By, model.RateKey{Kind: model.RateByAddress})
		default:
			out.By = append(out.By, model.RateKey{Kind: model.RateByHeader, Name: strings.ToLower(k.Header)})
		}
	}
	for _, w := range f.Weights {
		if f.By[0].Caller && !strings.Contains(w.Tenant, ".") {
			w.Tenant += "." + namespace
		}
		out.Weights = append(out.Weights, model.TenantWeight{Tenant: w.Tenant, Weight: uint32(w.Weight)})
	}
	return out
}
