package client

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// errRetired ends a connection that a retired client was about to make.
var errRetired = errors.New("another proxy has taken over")

// greet begins a session: everything that the control plane has to know, also when it has just been restarted
// and knows nothing; and all subscriptions again.
func (c *Client) greet(n *connection) error {
	c.mu.Lock()
	if c.retired {
		c.mu.Unlock()
		return errRetired
	}
	c.protocol.Restart()
	hello := c.hello()
	c.news = news{goodbye: c.gone}
	c.answers.restart()
	c.mu.Unlock()
	c.asked = time.Now()
	return n.session.Send(&tullepb.FromProxy{What: &tullepb.FromProxy_Hello{Hello: hello}})
}

func (c *Client) hello() *tullepb.Hello {
	w := &c.cfg.Workload
	h := &tullepb.Hello{
		Workload: w.Name, Namespace: w.Namespace, Service: w.Service, Version: w.Version, ServiceAccount: w.ServiceAccount,
		Labels: w.Labels, Address: text(w.Address), Metrics: text(w.Metrics), Pid: int64(w.PID), Starts: uint32(w.Starts), Proxy: w.Proxy,
		Ready: c.ready && !c.gone, Explains: c.cfg.Explain != nil,
	}
	for _, p := range w.Ports {
		h.Ports = append(h.Ports, &tullepb.WorkloadPort{Name: p.Name, Port: uint32(p.Port), Target: uint32(p.Target), Protocol: protocolName(p.Protocol)})
	}
	for port, p := range c.learnt {
		h.Learned = append(h.Learned, &tullepb.Learned{Port: uint32(port), Protocol: protocolName(p)})
	}
	return h
}

// due answers the messages that the session has to send now.
func (c *Client) due() []*tullepb.FromProxy {
	var out []*tullepb.FromProxy
	if c.retired {
		c.news = news{}
	}
	for _, port := range c.news.learned {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Learned{
			Learned: &tullepb.Learned{Port: uint32(port), Protocol: protocolName(c.learnt[port])}}})
	}
	if c.news.ready {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Ready{Ready: &tullepb.Ready{Ready: c.ready && !c.gone}}})
	}
	if c.stats != nil {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Stats{Stats: &tullepb.Stats{Json: c.stats}}})
		c.stats = nil
	}
	if c.proof != nil && !c.news.shown && !c.retired {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Shown{
			Shown: &tullepb.Shown{Chain: c.proof.Chain, Failing: c.proof.Failing, Wall: c.wall().UnixMilli()}}})
	}
	if c.capture != nil && !c.news.captured && !c.retired {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Captured{Captured: c.capture}})
	}
	out = c.answers.take(c.decisions(c.lessons(out)))
	if c.news.goodbye {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Goodbye{Goodbye: &tullepb.Goodbye{}}})
	}
	c.news = news{shown: true, captured: true}
	return out
}

// wall answers this machine's own time.
func (c *Client) wall() time.Time {
	if c.cfg.Clock != nil && c.cfg.Clock.Wall != nil {
		return c.cfg.Clock.Wall()
	}
	return time.Now()
}

// tellTime takes the control plane's time, which was said at some moment since asked.
func (c *Client) tellTime(now int64, asked time.Time) {
	if c.cfg.Clock != nil && now > 0 {
		c.cfg.Clock.Set(time.UnixMilli(now).Add(time.Since(asked) / 2))
	}
}

// hear takes a message of the control plane.
func (c *Client) hear(m *tullepb.ToProxy) {
	switch w := m.GetWhat().(type) {
	case *tullepb.ToProxy_Joined:
		c.tellTime(w.Joined.GetNow(), c.asked)
		c.relieve()
		c.connected(true)
	case *tullepb.ToProxy_Explain:
		c.explain(w.Explain)
	case *tullepb.ToProxy_Withdrawn:
		if n := w.Withdrawn.GetWaiting(); n > 0 {
			c.cfg.Log.Warn("callers did not acknowledge the withdrawal in time", "proxies", n)
		}
		c.mu.Lock()
		select {
		case <-c.parted:
		default:
			close(c.parted)
		}
		c.mu.Unlock()
	}
}

func text(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func protocolName(p model.Protocol) string {
	if p == model.ProtocolUnknown {
		return ""
	}
	return p.String()
}

// Bounds of what is told of recoveries; the server takes no more in one message.
const (
	maxRecovered   = 256
	maxRecoveredIn = 64
)

// lessons adds what was learned about recoveries. The caller holds mu.
func (c *Client) lessons(out []*tullepb.FromProxy) []*tullepb.FromProxy {
	for len(c.outages) > 0 {
		m := &tullepb.Recovered{}
		n := min(len(c.outages), maxRecoveredIn)
		for i := range c.outages[:n] {
			r := &c.outages[i]
			one := &tullepb.Recovery{Cluster: r.Cluster, Learned: r.Learned.Append(nil), Made: r.Made, Refused: r.Refused, Left: r.Left + 1}
			for _, o := range r.Last {
				one.Last = append(one.Last, &tullepb.Outage{Ended: o.Ended.UnixMilli(), Lasted: o.Lasted.Milliseconds()})
			}
			m.Of = append(m.Of, one)
		}
		c.outages = c.outages[n:]
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Recovered{Recovered: m}})
	}
	c.outages = nil
	return out
}

// maxDecided bounds how many decisions wait for the connection.
const maxDecided = 4 * decision.MaxReport

// decisions adds what was let in and what not. The caller holds mu.
func (c *Client) decisions(out []*tullepb.FromProxy) []*tullepb.FromProxy {
	for !c.decided.Empty() {
		n := min(len(c.decided.Of), decision.MaxReport)
		m := &tullepb.Decided{Others: c.decided.Others, UnprovenOthers: c.decided.UnprovenOthers}
		for i := range c.decided.Of[:n] {
			s := &c.decided.Of[i]
			m.Of = append(m.Of, &tullepb.Decision{Principal: s.Principal, Port: uint32(s.Port), Tcp: s.TCP, Grpc: s.GRPC,
				Method: valid(s.Method), Host: valid(s.Host), Path: valid(s.Path), Folded: s.Folded, ServerName: valid(s.ServerName), Fields: s.Fields,
				Verdict: s.Verdict, Policy: s.Policy, Rule: s.Rule, Absent: s.Absent, Count: s.Count, First: s.First, Last: s.Last,
				Request: valid(s.Request), Sample: valid(s.Sample)})
		}
		u := min(len(c.decided.Unproven), decision.MaxReport)
		for _, x := range c.decided.Unproven[:u] {
			m.Unproven = append(m.Unproven, &tullepb.Unproven{Port: uint32(x.Port), Address: x.Address, Tcp: x.TCP, Count: x.Count, Refused: x.Refused,
				First: x.First, Last: x.Last, Sample: valid(x.Sample)})
		}
		c.decided.Of, c.decided.Others = c.decided.Of[n:], 0
		c.decided.Unproven, c.decided.UnprovenOthers = c.decided.Unproven[u:], 0
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Decided{Decided: m}})
	}
	c.decided = decision.Report{}
	return out
}

// valid answers text that the wire takes; what others have sent may be anything.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
