package client

import (
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// maxAsked is how many questions of the control plane are answered at the same time.
const maxAsked = 4

// answers are what the control plane has asked, and is told. The client's mu guards it.
type answers struct {
	session uint64 // counts sessions: who asked in an earlier one hears nothing any more
	open    int    // questions that are being answered
	ready   []*tullepb.Explained
}

// restart forgets what an earlier session was to be told.
func (a *answers) restart() {
	a.session++
	a.ready = nil
}

// take adds the answers that are ready.
func (a *answers) take(out []*tullepb.FromProxy) []*tullepb.FromProxy {
	for _, e := range a.ready {
		out = append(out, &tullepb.FromProxy{What: &tullepb.FromProxy_Explained{Explained: e}})
	}
	a.ready = nil
	return out
}

// explain has the proxy answer what the control plane asks, in a goroutine that Close waits for: the proxy's loops are asked, which
// bound how long that takes.
func (c *Client) explain(m *tullepb.Explain) {
	q := flight.Question{ID: m.GetRequest(), Denied: m.GetDenied(), Failed: m.GetFailed(), Last: min(int(m.GetLast()), flight.MaxLast)}
	c.mu.Lock()
	session := c.answers.session
	refused := ""
	switch {
	case c.cfg.Explain == nil:
		refused = "it remembers nothing"
	case c.answers.open >= maxAsked:
		refused = "it is being asked too much: ask again"
	default:
		c.answers.open++
	}
	c.mu.Unlock()
	if refused != "" {
		c.answer(session, &tullepb.Explained{Id: m.GetId(), Why: refused})
		return
	}
	c.done.Go(func() {
		e := &tullepb.Explained{Id: m.GetId()}
		text, err := c.cfg.Explain(q)
		if e.Json = text; err != nil {
			e.Json, e.Why = nil, err.Error()
		}
		c.mu.Lock()
		c.answers.open--
		c.mu.Unlock()
		c.answer(session, e)
	})
}

// answer has the session told, unless it has ended.
func (c *Client) answer(session uint64, e *tullepb.Explained) {
	c.mu.Lock()
	if c.answers.session == session {
		c.answers.ready = append(c.answers.ready, e)
	}
	c.mu.Unlock()
	c.wakeUp()
}
