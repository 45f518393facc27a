package ads

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// typeURLs by kind.
var typeURLs = [...]string{
	model.ResourceListener:  "type.googleapis.com/envoy.config.listener.v3.Listener",
	model.ResourceCluster:   "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	model.ResourceRoutes:    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	model.ResourceEndpoints: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	model.ResourceSecret:    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}

// asked is the order in which kinds are asked for: what is referred to comes first.
var asked = [...]model.ResourceKind{model.ResourceCluster, model.ResourceEndpoints, model.ResourceListener, model.ResourceRoutes, model.ResourceSecret}

func kindOf(url string) (model.ResourceKind, bool) {
	for k, u := range typeURLs {
		if u == url {
			return model.ResourceKind(k), true
		}
	}
	return 0, false
}

// tongue is one of the two protocols: a state machine without I/O. Subscriptions outlive streams.
type tongue interface {
	want(kind model.ResourceKind, names []string) // nil of listeners and clusters: all
	restart()                                     // a new stream has begun
	ask() []proto.Message                         // what has to be sent now
	// hear answers what a response says; not ok: it is about nothing that was asked for.
	hear(r proto.Message) (b batch, ok bool)
	// answer notes what was taken and answers the ACK, or the NACK when something was refused.
	answer(r proto.Message, b batch, refused map[string]error) proto.Message
}

// batch is what one response says.
type batch struct {
	kind    model.ResourceKind
	items   []item
	removed []string
}

// item is one resource. name is "" where only the body says it.
type item struct {
	name string
	body *anypb.Any
}

// apply gives a batch to the sink and answers what was refused, by name; "" is what no resource can be blamed for.
func (c *Client) apply(b batch) map[string]error {
	refused := map[string]error{}
	var all model.Updates
	for _, n := range b.removed {
		all.Removed = append(all.Removed, model.Removed{Kind: b.kind, Name: n})
	}
	seen := map[string]bool{}
	var good []string
	var alone []model.Updates
	for i := range b.items {
		it := &b.items[i]
		var u model.Updates
		name, err := decode(b.kind, it.body, &u)
		switch {
		case it.name == "":
			it.name = name
		case err == nil && it.name != name:
			err = fmt.Errorf("is called %q inside", name)
		}
		if err == nil && seen[it.name] {
			err = errors.New("comes twice in one response")
		}
		seen[it.name] = true
		if err != nil {
			refused[it.name] = err
			continue
		}
		good, alone = append(good, it.name), append(alone, u)
		add(&all, &u)
	}
	// That there is no listener or cluster at all is news; otherwise nothing is no reason to ask.
	whole := b.kind == model.ResourceListener || b.kind == model.ResourceCluster
	var err error
	if len(good)+len(b.removed) > 0 || whole && len(b.items) == 0 {
		err = c.cfg.Sink.Apply(all)
	}
	switch {
	case err == nil:
	case len(alone) == 1 && len(b.removed) == 0:
		refused[good[0]] = err
	default:
		found := false
		for i := range alone {
			if err := c.cfg.Sink.Apply(alone[i]); err != nil {
				refused[good[i]], found = err, true
			}
		}
		if !found {
			refused[""] = err
		}
	}
	for name, err := range refused {
		refused[name] = errors.New(line(err.Error()))
		c.cfg.Log.Warn("configuration refused; what was there stays in force", "kind", typeURLs[b.kind], "name", name, "error", line(err.Error()))
	}
	return refused
}

func add(to, u *model.Updates) {
	to.Listeners = append(to.Listeners, u.Listeners...)
	to.Clusters = append(to.Clusters, u.Clusters...)
	to.Routes = append(to.Routes, u.Routes...)
	to.Endpoints = append(to.Endpoints, u.Endpoints...)
	to.Secrets = append(to.Secrets, u.Secrets...)
}

// open fills m from a, of exactly its type.
func open(a *anypb.Any, m proto.Message) error {
	if a == nil {
		return errors.New("has no content")
	}
	if !a.MessageIs(m) {
		return fmt.Errorf("is a %q, not a %s", a.MessageName(), m.ProtoReflect().Descriptor().FullName())
	}
	return a.UnmarshalTo(m)
}

// decode reads one resource into u and answers the name that it gives itself; the name also where it is refused, if that
// can be known.
func decode(kind model.ResourceKind, a *anypb.Any, u *model.Updates) (name string, err error) {
	switch kind {
	case model.ResourceListener:
		var m listenerv3.Listener
		if err := open(a, &m); err != nil {
			return "", err
		}
		l, err := envoy.Listener("", &m)
		if err == nil && m.GetName() == "" {
			err = errors.New("name: is missing")
		}
		u.Listeners = append(u.Listeners, l)
		return m.GetName(), err
	case model.ResourceCluster:
		var m clusterv3.Cluster
		if err := open(a, &m); err != nil {
			return "", err
		}
		c, e, err := envoy.Cluster("", &m)
		if err != nil {
			return m.GetName(), err
		}
		u.Clusters = append(u.Clusters, *c)
		if e != nil {
			u.Endpoints = append(u.Endpoints, e)
		}
		return m.GetName(), nil
	case model.ResourceRoutes:
		var m routev3.RouteConfiguration
		if err := open(a, &m); err != nil {
			return "", err
		}
		t, err := envoy.RouteTable("", &m)
		u.Routes = append(u.Routes, t)
		return m.GetName(), err
	case model.ResourceEndpoints:
		var m endpointv3.ClusterLoadAssignment
		if err := open(a, &m); err != nil {
			return "", err
		}
		e, err := envoy.Endpoints("", &m)
		u.Endpoints = append(u.Endpoints, e)
		return m.GetClusterName(), err
	}
	var m tlsv3.Secret
	if err := open(a, &m); err != nil {
		return "", err
	}
	s, err := envoy.Secret("", &m)
	if err != nil {
		return m.GetName(), err
	}
	u.Secrets = append(u.Secrets, *s)
	return m.GetName(), nil
}

// unwrap answers the name and body of a resource of a state-of-the-world response, which may be wrapped.
func unwrap(a *anypb.Any) item {
	var r discovery.Resource
	if a.MessageIs(&r) && a.UnmarshalTo(&r) == nil {
		return item{name: r.GetName(), body: r.GetResource()}
	}
	return item{body: a}
}

// wireNode is who we say we are.
func wireNode(n *model.Node) (*corev3.Node, error) {
	out := &corev3.Node{Id: n.ID, Cluster: n.Cluster, UserAgentName: "tulle"}
	if n.Locality != "" {
		parts := append(strings.SplitN(n.Locality, "/", 3), "", "")
		out.Locality = &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	}
	if n.Metadata != nil {
		out.Metadata = &structpb.Struct{}
		if err := protojson.Unmarshal(n.Metadata, out.Metadata); err != nil {
			return nil, fmt.Errorf("ads: the node's metadata: %s", line(err.Error()))
		}
	}
	return out, nil
}

// line keeps a sentence on one line.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
