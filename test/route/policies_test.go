package route_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// ports answers the ports of a story's services, in order.
func ports(c compile.Compiler) (out []model.PortName) {
	for n, s := range c.Services.(services) {
		for _, p := range s.Ports {
			out = append(out, model.PortName{Service: n, Port: p.Port})
		}
	}
	slices.SortFunc(out, func(a, b model.PortName) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// clusterOverTheWire is what the proxy gets of a cluster.
func clusterOverTheWire(t *testing.T, c compile.Compiler, name model.PortName) *model.Cluster {
	m, ok := c.Cluster(name)
	if !ok {
		t.Fatalf("there is no cluster %s", name)
	}
	e, err := resource.EncodeCluster(m)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := resource.Pack(e)
	if err != nil {
		t.Fatal(err)
	}
	out, err := resource.DecodeCluster(wire)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inForce answers what is different because of policies, as proxies get it, and who has said so.
func inForce(t *testing.T, c compile.Compiler) string {
	var b strings.Builder
	none := c
	none.Index = c.Index.With(nil, nil)
	for _, n := range ports(c) {
		more(&b, "cluster "+n.String(), compile.ClusterValues(clusterOverTheWire(t, none, n)), compile.ClusterValues(clusterOverTheWire(t, c, n)))
		more(&b, "routes "+n.String(), compile.TableValues(overTheWire(t, none, n, "")), compile.TableValues(overTheWire(t, c, n, "")))
		table, _ := c.RouteTable(n)
		seen := map[string]bool{}
		for i := range table.Routes {
			r := &table.Routes[i]
			for _, v := range c.RouteTreatment(n, r).Values() {
				line := fmt.Sprintf("from %s[%d] %s %s", r.Name, r.Rule, v.Field, v.From)
				if v.On != "" {
					line += " on " + v.On
				}
				if !seen[line] {
					fmt.Fprintln(&b, line)
				}
				seen[line] = true
			}
		}
	}
	return b.String()
}

// more writes the values that are not what they were.
func more(b *strings.Builder, what string, before, after map[string]string) {
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	first := true
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if before[p] == after[p] || after[p] == "set" {
			continue
		}
		if first {
			fmt.Fprintln(b, what)
			first = false
		}
		fmt.Fprintf(b, "  %s: %s\n", p, after[p])
	}
}

// conflicts answers what wants the same requests.
func conflicts(c compile.Compiler) string {
	var b strings.Builder
	var found []compile.Conflict
	for _, n := range ports(c) {
		found = append(found, c.Conflicts(n, takes)...)
	}
	for _, one := range compile.Together(found) {
		word := "note"
		if one.Warning() {
			word = "warning"
		}
		fmt.Fprintf(&b, "%s: %s\n", word, &one)
	}
	return b.String()
}

// takes is the production router: compile.Takes.
func takes(r *model.Route, q *compile.Request) bool {
	t, err := router.Compile(&model.RouteTable{Routes: []model.Route{*r}})
	if err != nil {
		return false
	}
	h := &message.Head{Method: []byte(q.Method), Target: []byte(q.Target), Authority: []byte(q.Host), Scheme: []byte("http"), ContentLength: message.NoLength}
	for _, f := range q.Headers {
		h.Add([]byte(f.Name), []byte(f.Value))
	}
	return t.Match(h) != nil
}

// notes answers what refers to something in vain, and who uses what routes refer to.
func notes(c compile.Compiler) string {
	var b strings.Builder
	tell := func(o v1alpha1.Object) {
		name := v1alpha1.KindOf(o).Name + "/" + o.GetNamespace() + "/" + o.GetName()
		for _, n := range c.Notes(o) {
			fmt.Fprintf(&b, "%s: %s: %s\n", name, n.Path, n.Message)
		}
		for _, u := range c.Users(o) {
			fmt.Fprintf(&b, "%s is used by %s, rule %d\n", name, u.Route.Name(), u.Rule)
		}
	}
	for _, r := range c.Index.Routes() {
		tell(r.Object)
	}
	for _, p := range c.Index.Policies() {
		tell(p.Object)
	}
	for _, o := range c.Index.Filters() {
		tell(o)
	}
	for _, p := range c.Index.SecurityPolicies() {
		tell(p.Object)
	}
	return b.String()
}
