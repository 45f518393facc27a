package ads

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/delta"
)

// incremental is the protocol that speaks of single resources; package delta has its rules.
type incremental struct {
	node  *corev3.Node
	rules *delta.Client
	names map[model.ResourceKind]map[string]bool // wanted
}

func newIncremental(node *corev3.Node) *incremental {
	return &incremental{node: node, rules: delta.NewClient(node.GetId()), names: map[model.ResourceKind]map[string]bool{}}
}

func (d *incremental) want(kind model.ResourceKind, names []string) {
	if kind == model.ResourceListener || kind == model.ResourceCluster {
		names = []string{delta.Wildcard}
	}
	now := map[string]bool{}
	for _, n := range names {
		now[n] = true
		d.rules.Subscribe(typeURLs[kind], n)
	}
	for n := range d.names[kind] {
		if !now[n] {
			d.rules.Unsubscribe(typeURLs[kind], n)
		}
	}
	d.names[kind] = now
}

func (d *incremental) restart() { d.rules.Restart() }

func (d *incremental) ask() []proto.Message {
	due := map[string]*delta.Request{}
	for _, r := range d.rules.Requests() {
		due[r.GetTypeUrl()] = r
	}
	var out []proto.Message
	var node *corev3.Node
	for _, r := range due {
		if r.Node != nil { // the rules have put it into the first of theirs
			r.Node, node = nil, d.node
		}
	}
	for _, kind := range asked {
		if r := due[typeURLs[kind]]; r != nil {
			r.Node, node = node, nil
			out = append(out, r)
		}
	}
	return out
}

func (d *incremental) hear(m proto.Message) (batch, bool) {
	r := m.(*delta.Response) // serve reads nothing else
	kind, ok := kindOf(r.GetTypeUrl())
	if !ok {
		return batch{}, false
	}
	b := batch{kind: kind}
	for _, u := range d.rules.Receive(r) {
		if u.Resource == nil {
			b.removed = append(b.removed, u.Name)
			continue
		}
		b.items = append(b.items, item{name: u.Name, body: u.Resource.GetResource()})
	}
	return b, true
}

func (d *incremental) answer(m proto.Message, _ batch, refused map[string]error) proto.Message {
	return d.rules.Finish(m.(*delta.Response), refused) // serve reads nothing else
}
