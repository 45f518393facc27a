package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/proxy/watch"
)

// table is a route table by its name, or an inline one of a chain.
type table struct {
	now   atomic.Pointer[router.Table] // nil: not known yet
	next  *router.Table                // waits for its clusters; under Gateway.mu
	since time.Time
}

// tableOf answers the table of a chain, made if it is inline or asked for for the first time. mu is held.
func (g *Gateway) tableOf(m *model.HTTP) (*table, error) {
	if m.Routes != nil {
		t, err := router.Compile(m.Routes)
		if err != nil {
			return nil, err
		}
		out := &table{}
		out.now.Store(t)
		return out, nil
	}
	t := g.tables[m.RDS]
	if t == nil {
		t = &table{}
		g.tables[m.RDS] = t
	}
	return t, nil
}

// entry is one cluster.
type entry struct {
	cluster *cluster.Cluster
	model   *model.Cluster
	static  bool             // of the bootstrap
	known   bool             // its endpoints are
	names   *names           // nil: they do not come from names
	watch   *watch.Watch     // nil: nobody looks after their health
	told    *model.Endpoints // by the bootstrap or the control plane; nil: by neither
	sweeper *sweeper         // nil: they are not what clients wanted
	since   time.Time
}

// Apply takes what the control plane says. What is good of it is put in force, at once or when what it needs has come; the
// error says in one line what is wrong with the rest, which stays as it was: a NACK. One call at a time.
func (g *Gateway) Apply(u model.Updates) error {
	err := g.secrets.Update(u.Secrets)
	err = join(err, g.apply(u, false), g.settleNow())
	g.tellWants()
	return err
}

func (g *Gateway) apply(u model.Updates, static bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var wrong []error
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if !static {
		g.hear(&u)
	}
	for _, r := range u.Removed {
		g.remove(r)
	}
	for i := range u.Clusters {
		note(g.putCluster(&u.Clusters[i], static))
	}
	if len(u.Clusters) > 0 || len(u.Removed) > 0 {
		g.hold()
	}
	for _, e := range u.Endpoints {
		if c := g.clusters[e.Cluster]; c != nil {
			g.putEndpoints(c, e)
		}
	}
	for _, t := range u.Routes {
		note(g.putTable(t))
	}
	for i := range u.Listeners {
		note(g.putListener(&u.Listeners[i], static))
	}
	return join(wrong...)
}

// nodeLabels answers the texts under "labels" in the node's metadata.
func nodeLabels(n *model.Node) []model.Label {
	var m struct{ Labels map[string]string }
	if json.Unmarshal(n.Metadata, &m) != nil {
		return nil // metadata is anybody's: it may say something else there
	}
	return model.LabelsOf(m.Labels)
}

func (g *Gateway) putCluster(m *model.Cluster, static bool) error {
	e := g.clusters[m.Name]
	if e != nil && e.static && !static {
		return fmt.Errorf("cluster %s: the bootstrap has one of that name; choose another", m.Name)
	}
	if e == nil {
		e = &entry{cluster: cluster.New(m), static: static, since: time.Now()}
		e.cluster.SetLocality(g.cfg.Bootstrap.Node.Locality, nodeLabels(&g.cfg.Bootstrap.Node))
	}
	if reflect.DeepEqual(e.model, m) {
		return nil // the same again: its connections are for this very model
	}
	if err := g.secureCluster(e, m); err != nil {
		return err
	}
	e.cluster.Set(m)
	if e.model != nil {
		g.tidy()
	}
	e.model = m
	g.clusters[m.Name] = e
	g.follow(e, m)
	g.attend(e, m)
	return nil
}

// putEndpoints puts endpoints in force unless they are those that are.
func (g *Gateway) putEndpoints(c *entry, e *model.Endpoints) {
	c.known = true
	if c.told != nil && reflect.DeepEqual(c.told, e) {
		return
	}
	c.told = e
	c.cluster.SetEndpoints(e)
	g.tidy()
}

// hold publishes which clusters there are.
func (g *Gateway) hold() {
	held := make(map[model.PortName]*cluster.Cluster, len(g.clusters))
	for n, e := range g.clusters {
		held[n] = e.cluster
	}
	if !maps.Equal(held, *g.held.Load()) {
		g.held.Store(&held)
	}
}

func (g *Gateway) putTable(m *model.RouteTable) error {
	t := g.tables[m.Name.String()]
	if t != nil && t.next == nil && t.now.Load() != nil && reflect.DeepEqual(t.now.Load().Model, m) {
		return nil // the same again
	}
	c, err := router.Compile(m)
	if err != nil || t == nil { // nil: not asked for
		return err
	}
	if t.next == nil {
		t.since = time.Now()
	}
	t.next = c
	return nil
}

func (g *Gateway) putListener(m *model.Listener, static bool) error {
	l := g.listeners[m.Name]
	if l == nil {
		l = newListener(g, m.Name, static)
	} else if l.static && !static {
		return fmt.Errorf("listener %s: the bootstrap has one of that name; choose another", m.Name)
	}
	if v := l.now.Load(); v != nil && l.next == nil && reflect.DeepEqual(v.model, m) {
		return nil // the same again
	}
	v, err := g.version(m, l.now.Load())
	if err != nil {
		return err
	}
	if l.next == nil {
		l.since = time.Now()
	}
	l.next = v
	g.listeners[m.Name] = l
	return nil
}

// remove takes out what the control plane has no more.
func (g *Gateway) remove(r model.Removed) {
	switch r.Kind {
	case model.ResourceListener:
		if l := g.listeners[r.Name]; l != nil && !l.static {
			delete(g.listeners, r.Name)
			l.close()
			if v := l.now.Load(); v != nil {
				g.retire(v, nil)
			}
		}
	case model.ResourceCluster:
		name := model.Free(r.Name)
		if e := g.clusters[name]; e != nil && !e.static {
			delete(g.clusters, name)
			e.unfollow()
			e.cluster.SetEndpoints(nil)
			g.tidy()
		}
	case model.ResourceEndpoints:
		if e := g.clusters[model.Free(r.Name)]; e != nil {
			e.told = nil
			e.cluster.SetEndpoints(nil)
			g.tidy()
		}
	case model.ResourceSecret:
		g.secrets.Remove(r.Name)
	}
}

// join makes one line of several errors, as a NACK is one.
func join(all ...error) error {
	err := errors.Join(all...)
	if err == nil {
		return nil
	}
	if line := strings.ReplaceAll(err.Error(), "\n", "; "); line != err.Error() {
		return errors.New(line)
	}
	return err
}
