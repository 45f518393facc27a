package control

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/xds/server"
)

// captures are the workloads whose proxies have found out that the programs' traffic does not go through them. Its zero value is
// ready to use; there are at most as many as there are sessions.
type captures struct {
	mu sync.Mutex
	of map[string]captureOf // by workload
}

type captureOf struct {
	starts int
	server.Capture
}

// note takes what a proxy says: push.Sessions.Captured.
func (c *captures) note(w registry.Workload, said server.Capture) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case said.Broken != "":
		if c.of == nil {
			c.of = map[string]captureOf{}
		}
		c.of[w.Key()] = captureOf{w.Starts, said}
	case c.of[w.Key()].starts == w.Starts:
		delete(c.of, w.Key())
	}
}

// left takes that a proxy is gone: the one after it says anew what it finds.
func (c *captures) left(w registry.Workload) { c.note(w, server.Capture{}) }

// alarms answers what there is to say about them: httpapi.Config.Captures.
func (c *captures) alarms() []trust.Alarm {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []trust.Alarm
	for w, s := range c.of {
		what := "what it sends may go round its policies"
		if s.Closed {
			what = "its network is cut off and it takes no requests"
		}
		out = append(out, trust.Alarm{What: "capture of workload " + w, Message: fmt.Sprintf("since %s its traffic does not go through its proxy, %s: %s; start it again, and find out who has changed its network namespace",
			s.Since.UTC().Format(time.RFC3339), what, s.Broken)})
	}
	slices.SortFunc(out, func(a, b trust.Alarm) int { return cmp.Compare(a.What, b.What) })
	return out
}
