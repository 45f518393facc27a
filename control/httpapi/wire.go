package httpapi

import (
	"encoding/json"
	"time"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/trust"
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
	AllowUnresolved bool   `json:"allowUnresolved,omitempty"` // references to what nobody knows are warnings
	Strict          bool   `json:"strict,omitempty"`          // refuse objects that contradict others of the same precedence
	Diff            bool   `json:"diff,omitempty"`            // with DryRun: tell each object before and after
}

// ApplyResult says what happened to each object.
type ApplyResult struct {
	Objects   []Applied        `json:"objects"`
	Conflicts []Contradiction  `json:"conflicts,omitempty"` // that the objects are part of
	Warnings  []decode.Error   `json:"warnings,omitempty"`  // what the objects refer to in vain
	Broken    []Reference      `json:"broken,omitempty"`    // what other objects refer to in vain from now on
	Changes   []compile.Change `json:"changes,omitempty"`   // DryRun: what proxies would be told
	Revision  int64            `json:"revision"`            // that all of it is in
}

// Contradiction is a conflict and where the object is written that it is about. File is "" in listings.
type Contradiction struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Object string `json:"object,omitempty"` // "HTTPRoute/cart"
	compile.Conflict
}

// String answers it in one line.
func (c *Contradiction) String() string {
	if c.File == "" {
		return c.Conflict.String()
	}
	return decode.Error{File: c.File, Line: c.Line, Object: c.Object, Message: c.Conflict.String()}.Error()
}

// Conflicts are those of all objects that are stored, and policies that are not in force.
type Conflicts struct {
	Conflicts []compile.Conflict `json:"conflicts"`
	Policies  []PolicyNote       `json:"policies"`
	// References that lead nowhere.
	References []Reference `json:"references"`
}

// Reference is a field of a stored object that refers to something in vain.
type Reference struct {
	Object string `json:"object"` // "HTTPRoute/default/cart"
	compile.Note
}

// String answers it in one line.
func (r *Reference) String() string {
	if r.Path == "" {
		return r.Object + ": " + r.Message
	}
	return r.Object + ": " + r.Path + ": " + r.Message
}

// PolicyNote is a condition of a policy, for one of its targets, that is not as its author wants it.
type PolicyNote struct {
	Policy  string `json:"policy"` // "TrafficPolicy/default/reviews"
	Target  string `json:"target"` // "Service/reviews#http"
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Applied is one object; Action is created, configured, unchanged, deleted or absent.
type Applied struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Action    string `json:"action"`
	// Before and After are the object, with Diff; null where there is none.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// ObjectList are objects with their status, as they are written in files.
type ObjectList struct {
	Items    []json.RawMessage `json:"items"`
	Revision int64             `json:"revision"`
}

// Bundle is the roots of the mesh's own trust domain.
type Bundle struct {
	TrustDomain string          `json:"trustDomain"`
	Bundle      json.RawMessage `json:"bundle"` // SPIFFE's form
	PEM         string          `json:"pem"`
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
	// Alarms are about certificates, what signs them, and workloads whose traffic does not go through their proxies.
	Alarms []trust.Alarm `json:"alarms,omitempty"`
	// Rotation is that of the root, while there is one.
	Rotation *trust.Rotation `json:"rotation,omitempty"`
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
	// Unowned are the slots that no endpoint owns which takes new requests, where there are shards: "12", "100-127".
	Unowned []string `json:"unowned,omitempty"`
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
	// Shards are the slots that it says it owns, where there are shards; ShardsError is why that cannot be read: it owns none then.
	Shards      string `json:"shards,omitempty"`
	ShardsError string `json:"shardsError,omitempty"`
}

// RouteTable is a compiled route table: of a port, or of a port for the callers of one namespace ("cart.default:80@shop").
type RouteTable struct {
	Name   string             `json:"name"`
	Routes []model.Route      `json:"routes"`
	Relay  []model.RelayRoute `json:"relay,omitempty"` // of connections that are not HTTP
	// Policies say what is in force about the port and where it comes from, and likewise about each route alone.
	Policies      []compile.Value            `json:"policies,omitempty"`
	RoutePolicies map[string][]compile.Value `json:"routePolicies,omitempty"` // by "HTTPRoute/default/cart[0]"
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
	Service        string        `json:"service,omitempty"`
	Any            bool          `json:"any,omitempty"`
	TTL            time.Duration `json:"ttl,omitempty"`
	Uses           int           `json:"uses,omitempty"`
}
