package model

import (
	"net/netip"
	"time"
)

// Bootstrap is a whole configuration of a proxy without a workload: what tulle proxy --bootstrap runs.
type Bootstrap struct {
	Node      Node
	Admin     *Admin // nil: none
	Listeners []Listener
	Clusters  []Cluster
	Endpoints []Endpoints // of static clusters
	Secrets   []Secret    // static, found by SDS name
	// Dynamic resources; nil: none.
	ADS *ADS
	// LDS and CDS say that listeners and clusters come from ADS.
	LDS, CDS bool
}

// Node is who the proxy says it is to a control plane.
type Node struct {
	ID, Cluster string
	Locality    string
	Metadata    []byte // JSON, as given; nil: none
}

// Admin is where questions about the proxy are answered.
type Admin struct {
	Address    netip.AddrPort
	AccessLogs []AccessLog
	// Open allows an address that is not a loopback one.
	Open bool
}

// ADS is the stream that configuration comes over.
type ADS struct {
	Cluster PortName // a static cluster that speaks HTTP/2
	Delta   bool     // DELTA_GRPC; otherwise state of the world
	// Authority is the stream's ":authority".
	Authority string
	// InitialFetch bounds the wait for a first resource before listeners start without it; default 15 s.
	InitialFetch time.Duration
	Headers      []Header // initial metadata
}

// Updates are resources as they come over ADS, decoded. Removed names are resources that are gone.
type Updates struct {
	Listeners []Listener
	Clusters  []Cluster
	Routes    []*RouteTable
	Endpoints []*Endpoints
	Secrets   []Secret
	Removed   []Removed
}

// Removed names a resource that is gone.
type Removed struct {
	Kind ResourceKind
	Name string
}

// ResourceKind is a kind of resource.
type ResourceKind uint8

// Kinds.
const (
	ResourceListener ResourceKind = iota
	ResourceCluster
	ResourceRoutes
	ResourceEndpoints
	ResourceSecret
)
