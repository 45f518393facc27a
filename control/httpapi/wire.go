package httpapi

import (
	"encoding/json"
	"time"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Error is the body of every answer that is not 200.
type Error struct {
	Status  int            `json:"-"`
	Message string         `json:"message"`
	Errors  []decode.Error `json:"errors,omitempty"` // of files
}

// Error answers the message, or a line per error in a file.
func (e *Error) Error() string {
	if len(e.Errors) > 0 {
		return decode.Errors(e.Errors).Error()
	}
	return e.Message
}

// File is one file to apply.
type File struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// ApplyRequest stores (or deletes) all objects of the files, or none.
type ApplyRequest struct {
	Files           []File `json:"files"`
	Delete          bool   `json:"delete,omitempty"`
	DryRun          bool   `json:"dryRun,omitempty"`
	AllowUnresolved bool   `json:"allowUnresolved,omitempty"` // references to Services that nobody knows
}

// ApplyResult says what happened to each object.
type ApplyResult struct {
	Objects  []Applied `json:"objects"`
	Revision int64     `json:"revision"` // that all of it is in
}

// Applied is one object; Action is created, configured, unchanged, deleted or absent.
type Applied struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Action    string `json:"action"`
}

// ObjectList are objects with their status, as they are written in files.
type ObjectList struct {
	Items    []json.RawMessage `json:"items"`
	Revision int64             `json:"revision"`
}

// Info is what a control plane says about itself.
type Info struct {
	Version     string    `json:"version"`
	TrustDomain string    `json:"trustDomain"`
	Store       string    `json:"store"` // "embedded etcd" or the endpoints
	DataDir     string    `json:"dataDir"`
	HTTP        string    `json:"http"`
	GRPC        string    `json:"grpc"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
}

// Status is the control plane and its workloads.
type Status struct {
	Control   Info       `json:"control"`
	Revision  int64      `json:"revision"`
	Workloads []Workload `json:"workloads"`
	Services  []Service  `json:"services"`
	Proxies   []Proxy    `json:"proxies,omitempty"`
}

// Workload is one announced program.
type Workload struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Service   string            `json:"service"`
	Version   string            `json:"version,omitempty"`
	State     string            `json:"state"`
	Since     time.Time         `json:"since"`
	Identity  string            `json:"identity"`
	Address   string            `json:"address,omitempty"`
	Metrics   string            `json:"metrics,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Ports     []string          `json:"ports,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Service is a name that workloads answer to.
type Service struct {
	Name      string   `json:"name"` // "reviews.default"
	VIP4      string   `json:"vip4,omitempty"`
	VIP6      string   `json:"vip6,omitempty"`
	Ports     []string `json:"ports"`
	Implicit  bool     `json:"implicit,omitempty"`
	Workloads int      `json:"workloads"`
}

// Proxy is one connected proxy.
type Proxy struct {
	Workload  string    `json:"workload"` // "namespace/name"
	Version   string    `json:"version,omitempty"`
	Revision  int64     `json:"revision"` // of the store, that it enforces
	Connected time.Time `json:"connected"`
	Resources int       `json:"resources"`
	Rejected  string    `json:"rejected,omitempty"` // why it did not take what it was sent last
}

// Straggler is a proxy that does not enforce a revision yet.
type Straggler struct {
	Workload string `json:"workload"`
	Revision int64  `json:"revision"`
	Reason   string `json:"reason,omitempty"`
}

// EndpointSet are the endpoints of one port of a service.
type EndpointSet struct {
	Cluster   string     `json:"cluster"` // "reviews.default:9080"
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is one workload's port.
type Endpoint struct {
	Workload string `json:"workload"`
	Address  string `json:"address"`
	Port     uint16 `json:"port"`
	Version  string `json:"version,omitempty"`
	Weight   uint32 `json:"weight"`
	Health   string `json:"health"`
	Protocol string `json:"protocol"`
	Identity string `json:"identity"`
}

// RouteTable is a compiled route table.
type RouteTable struct {
	Name   string        `json:"name"`
	Routes []model.Route `json:"routes"`
}

// Stat is what flowed in a window.
type Stat struct {
	Window time.Duration    `json:"window"`
	Edges  []telemetry.Edge `json:"edges"`
}

// WaitResult says whether a revision is enforced everywhere.
type WaitResult struct {
	Revision   int64       `json:"revision"`
	Enforced   bool        `json:"enforced"`
	Stragglers []Straggler `json:"stragglers,omitempty"`
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Namespace      string        `json:"namespace,omitempty"`
	ServiceAccount string        `json:"serviceAccount,omitempty"`
	TTL            time.Duration `json:"ttl,omitempty"`
	Uses           int           `json:"uses,omitempty"`
}
