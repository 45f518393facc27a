package ads_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/ads"
	"github.com/tulle-mesh/tulle/xds/xdstest"
)

const (
	clusters  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	listeners = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routes    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	endpoints = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// plane is a control plane whose streams the test itself speaks on.
type plane struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	t       testing.TB
	address string
	streams chan *peer
}

// peer is one stream.
type peer struct {
	grpc.ServerStream
	t     testing.TB
	delta bool
	over  chan struct{} // closed: the stream is to end
}

func (p *plane) serve(s grpc.ServerStream, delta bool) error {
	q := &peer{ServerStream: s, t: p.t, delta: delta, over: make(chan struct{})}
	select {
	case p.streams <- q:
	case <-s.Context().Done():
	}
	select {
	case <-q.over:
	case <-s.Context().Done():
	}
	return nil
}

func (p *plane) DeltaAggregatedResources(s grpc.BidiStreamingServer[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]) error {
	return p.serve(s, true)
}

func (p *plane) StreamAggregatedResources(s grpc.BidiStreamingServer[discovery.DiscoveryRequest, discovery.DiscoveryResponse]) error {
	return p.serve(s, false)
}

func newPlane(t *testing.T, options ...grpc.ServerOption) *plane {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, address: l.Addr().String(), streams: make(chan *peer)}
	g := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, p)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	return p
}

// next answers the next stream.
func (p *plane) next() *peer {
	p.t.Helper()
	select {
	case q := <-p.streams:
		return q
	case <-time.After(10 * time.Second):
		p.t.Fatal("no stream came")
		return nil
	}
}

// expect reads one request and compares it with want: "cluster +* -x version nonce error", the kind in short.
func (q *peer) expect(want string) proto.Message {
	q.t.Helper()
	got := make(chan proto.Message, 1)
	go func() { // ends with the stream
		var m proto.Message = &discovery.DiscoveryRequest{}
		if q.delta {
			m = &discovery.DeltaDiscoveryRequest{}
		}
		if err := q.RecvMsg(m); err == nil {
			got <- m
		}
	}()
	select {
	case m := <-got:
		if s := said(m); s != want {
			q.t.Fatalf("the client said\n%q, expected\n%q", s, want)
		}
		return m
	case <-time.After(10 * time.Second):
		q.t.Fatalf("nothing was said, expected %q", want)
		return nil
	}
}

func said(m proto.Message) string {
	var words []string
	short := func(url string) { words = append(words, strings.ToLower(url[strings.LastIndex(url, ".")+1:])) }
	node, why := (*corev3.Node)(nil), ""
	switch r := m.(type) {
	case *discovery.DeltaDiscoveryRequest:
		short(r.GetTypeUrl())
		for _, n := range r.GetResourceNamesSubscribe() {
			words = append(words, "+"+n)
		}
		for _, n := range r.GetResourceNamesUnsubscribe() {
			words = append(words, "-"+n)
		}
		for _, n := range slices.Sorted(maps.Keys(r.GetInitialResourceVersions())) {
			words = append(words, n+"="+r.GetInitialResourceVersions()[n])
		}
		words = append(words, "n"+r.GetResponseNonce())
		node, why = r.GetNode(), r.GetErrorDetail().GetMessage()
	case *discovery.DiscoveryRequest:
		short(r.GetTypeUrl())
		words = append(words, r.GetResourceNames()...)
		words = append(words, "v"+r.GetVersionInfo(), "n"+r.GetResponseNonce())
		node, why = r.GetNode(), r.GetErrorDetail().GetMessage()
	}
	if node != nil {
		words = append(words, "I am "+node.GetId())
	}
	if why != "" {
		words = append(words, "refused: "+why)
	}
	return strings.Join(words, " ")
}

// tell sends resources as version and nonce, and names as gone.
func (q *peer) tell(url, version, nonce string, gone []string, resources ...proto.Message) {
	q.t.Helper()
	var m proto.Message
	one := &discovery.DiscoveryResponse{TypeUrl: url, VersionInfo: version, Nonce: nonce}
	m = one
	many := &discovery.DeltaDiscoveryResponse{TypeUrl: url, SystemVersionInfo: version, Nonce: nonce, RemovedResources: gone}
	if q.delta {
		m = many
	}
	for _, r := range resources {
		a, err := anypb.New(r)
		if err != nil {
			q.t.Fatal(err)
		}
		one.Resources = append(one.Resources, a)
		many.Resources = append(many.Resources, &discovery.Resource{Name: nameOf(r), Version: version, Resource: a})
	}
	if err := q.SendMsg(m); err != nil {
		q.t.Fatal(err)
	}
}

func nameOf(m proto.Message) string {
	switch r := m.(type) {
	case interface{ GetName() string }:
		return r.GetName()
	case interface{ GetClusterName() string }:
		return r.GetClusterName()
	}
	return ""
}

// sink writes down what it is given.
type sink struct {
	mu     sync.Mutex
	lines  []string
	refuse string // the name of a resource
}

func (s *sink) Apply(u model.Updates) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	var err error
	note := func(kind, name string) {
		if words = append(words, kind+" "+name); name == s.refuse {
			err = errors.Join(errors.New("no"), errors.New("thanks"))
		}
	}
	for _, r := range u.Removed {
		note(fmt.Sprint("gone ", r.Kind), r.Name)
	}
	for _, c := range u.Clusters {
		note("cluster", c.Name.String())
	}
	for _, e := range u.Endpoints {
		note("endpoints", e.Cluster.String())
	}
	for _, l := range u.Listeners {
		note("listener", l.Name)
	}
	for _, r := range u.Routes {
		note("routes", r.Name.String())
	}
	s.lines = append(s.lines, strings.Join(words, ", "))
	return err
}

func (s *sink) until(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // poll
		s.mu.Lock()
		got := strings.Join(s.lines, "; ")
		s.mu.Unlock()
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the sink was given\n%q, expected\n%q", got, want)
		}
	}
}

func start(t *testing.T, p *plane, s ads.Sink, change func(*ads.Config)) *ads.Client {
	t.Helper()
	cfg := ads.Config{Node: model.Node{ID: "me", Cluster: "edge", Locality: "r/z/", Metadata: []byte(`{"k": 1}`)}, CDS: true, LDS: true,
		Addresses: []string{p.address}, Sink: s, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	c, err := ads.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func delta(c *ads.Config) { c.Delta = true }

func cluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}}}
}

func bad(name string) *clusterv3.Cluster {
	c := cluster(name)
	c.TrackClusterStats = &clusterv3.TrackClusterStats{}
	return c
}

const why = "track_cluster_stats: is not run by Tulle (docs/reference/xds.md)"

func TestDelta(t *testing.T) {
	p, s := newPlane(t), &sink{}
	c := start(t, p, s, delta)
	q := p.next()
	m := q.expect("cluster +* n I am me").(*discovery.DeltaDiscoveryRequest)
	if n := m.GetNode(); n.GetCluster() != "edge" || n.GetLocality().GetZone() != "z" || n.GetMetadata().GetFields()["k"].GetNumberValue() != 1 {
		t.Errorf("node %v", n)
	}
	q.expect("listener +* n")
	q.tell(clusters, "1", "a", nil, cluster("x"), cluster("y"), bad("z"))
	q.expect("cluster na refused: z: " + why)
	s.until(t, "cluster x, cluster y")
	c.Want(model.ResourceEndpoints, []string{"y", "x"})
	q.expect("clusterloadassignment +x +y n")
	q.tell(endpoints, "1", "b", nil, &endpointv3.ClusterLoadAssignment{ClusterName: "x"}, &endpointv3.ClusterLoadAssignment{ClusterName: "stranger"})
	q.expect("clusterloadassignment nb")
	q.tell(clusters, "2", "c", []string{"y"}, cluster("z"))
	q.expect("cluster nc")
	s.until(t, "cluster x, cluster y; endpoints x; gone 1 y, cluster z")
	c.Want(model.ResourceEndpoints, []string{"x", "z"})
	q.expect("clusterloadassignment +z -y n")

	close(q.over) // the next stream is told what is there
	q = p.next()
	q.expect("cluster +* x=1 z=2 n I am me")
	q.expect("clusterloadassignment +x +z x=1 n")
	q.expect("listener +* n")
	q.tell(clusters, "3", "d", []string{"x"})
	q.expect("cluster nd")
	s.until(t, "cluster x, cluster y; endpoints x; gone 1 y, cluster z; gone 1 x")
	if st := c.State(); !st.Connected || st.LastError != "" {
		t.Errorf("state %+v", st)
	}
}

func TestWorld(t *testing.T) {
	p, s := newPlane(t), &sink{}
	c := start(t, p, s, nil)
	q := p.next()
	q.expect("cluster v n I am me")
	q.expect("listener v n")
	q.tell(clusters, "1", "a", nil, cluster("x"), cluster("y"))
	q.expect("cluster v1 na")
	q.tell(clusters, "2", "b", nil, bad("x"), cluster("z")) // x stays as it was, y is gone
	q.expect("cluster v1 nb refused: x: " + why)
	s.until(t, "cluster x, cluster y; gone 1 y, cluster z")
	c.Want(model.ResourceRoutes, []string{"r2", "r1"})
	q.expect("routeconfiguration r1 r2 v n")
	q.tell(routes, "1", "c", nil, &routev3.RouteConfiguration{Name: "r1"}, &routev3.RouteConfiguration{Name: "stranger"})
	q.expect("routeconfiguration r1 r2 v1 nc")
	q.tell(routes, "2", "d", nil, &routev3.RouteConfiguration{Name: "r2"}) // r1 is still there
	q.expect("routeconfiguration r1 r2 v2 nd")
	s.until(t, "cluster x, cluster y; gone 1 y, cluster z; routes r1; routes r2")
	c.Want(model.ResourceRoutes, []string{"r2"})
	q.expect("routeconfiguration r2 v2 nd")

	close(q.over)
	q = p.next()
	q.expect("cluster v1 n I am me")
	q.expect("listener v n")
	q.expect("routeconfiguration r2 v2 n")
	c.Want(model.ResourceRoutes, nil)
	q.expect("routeconfiguration v2 n")
	q.tell(clusters, "3", "e", nil)
	q.expect("cluster v3 ne")
	s.until(t, "cluster x, cluster y; gone 1 y, cluster z; routes r1; routes r2; gone 1 x, gone 1 z")
}

// TestSinkRefuses: what the sink does not take is refused by name and in one line, the rest of the response is taken.
func TestSinkRefuses(t *testing.T) {
	p, s := newPlane(t), &sink{refuse: "y"}
	start(t, p, s, delta)
	q := p.next()
	q.expect("cluster +* n I am me")
	q.expect("listener +* n")
	q.tell(clusters, "1", "a", nil, cluster("x"), cluster("y"))
	q.expect("cluster na refused: y: no; thanks")
	s.until(t, "cluster x, cluster y; cluster x; cluster y")
	close(q.over)
	p.next().expect("cluster +* x=1 n I am me") // y is not held
}

func TestTwiceAndMisnamed(t *testing.T) {
	p, s := newPlane(t), &sink{}
	start(t, p, s, nil)
	q := p.next()
	q.expect("cluster v n I am me")
	q.expect("listener v n")
	q.tell(clusters, "1", "a", nil, cluster("x"), cluster("x"))
	q.expect("cluster v na refused: x: comes twice in one response")
	q.tell(clusters, "1", "b", nil, &routev3.RouteConfiguration{Name: "r"})
	m := q.expect("cluster v nb refused: " + `is a "envoy.config.route.v3.RouteConfiguration", not a envoy.config.cluster.v3.Cluster`).(*discovery.DiscoveryRequest)
	if strings.Contains(m.GetErrorDetail().GetMessage(), "\n") {
		t.Error("not one line")
	}
}

// TestSecured: TLS, an authority that is not the name to be proven, and metadata; and the second address where the first
// does not answer.
func TestSecured(t *testing.T) {
	a := svidtest.New(t)
	p := newPlane(t, grpc.Creds(credentials.NewTLS(svid.ServerConfig(a.Issue(xdstest.ID)))))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	var tried []string
	start(t, p, &sink{}, func(c *ads.Config) {
		c.TLS = svid.ClientConfig(a.Issue(xdstest.ID), xdstest.ID)
		c.TLS.ServerName = "control.example"
		c.Authority, c.Headers = "xds_cluster", []model.Header{{Name: "authorization", Value: "Bearer x"}}
		c.Addresses = []string{closed.Addr().String(), p.address}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			tried = append(tried, address)
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	})
	q := p.next()
	md, _ := metadata.FromIncomingContext(q.Context())
	if got := fmt.Sprint(md[":authority"], md["authorization"]); got != "[xds_cluster] [Bearer x]" {
		t.Error(got)
	}
	if tried[0] != closed.Addr().String() {
		t.Errorf("tried %v", tried)
	}
}

func TestStartRefuses(t *testing.T) {
	for _, cfg := range []ads.Config{{Sink: &sink{}}, {Addresses: []string{"a:1"}}, {Sink: &sink{}, Addresses: []string{"a:1"}, Node: model.Node{Metadata: []byte("[")}}} {
		if _, err := ads.Start(cfg); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
