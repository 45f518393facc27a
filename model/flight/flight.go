// Package flight is what proxies remember of single requests and connections (their flight recorders), in the form in which they
// tell it: Explained is one proxy's view of one request, Question is which views are wanted, and Choose puts together what several
// proxies have told of the same request. There is no query, no field and no credential in it. Pure. Start reading at Explained.
package flight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of one proxy's answer.
const (
	MaxLast = 500       // views
	MaxJSON = 768 << 10 // bytes, written as JSON
	MaxID   = 256       // bytes of a request's id that is asked for
)

// Question is which views of one proxy are wanted.
type Question struct {
	ID     string `json:"id,omitempty"`     // x-request-id; "": any
	Denied bool   `json:"denied,omitempty"` // those that policies have denied, or would
	Failed bool   `json:"failed,omitempty"` // those that failed or were denied
	Last   int    `json:"last,omitempty"`   // at most so many, the newest; MaxLast at most
}

// Explained is one proxy's view of one request or connection. Times are in milliseconds.
type Explained struct {
	Workload  string `json:"workload"` // whose proxy this is
	Namespace string `json:"namespace"`
	Service   string `json:"service"`

	Direction     string    `json:"direction"` // outbound: the workload is the caller
	Began         time.Time `json:"began"`
	Request       string    `json:"request,omitempty"` // x-request-id
	Protocol      string    `json:"protocol"`
	TCP           bool      `json:"tcp,omitempty"`
	MTLS          bool      `json:"mtls,omitempty"`
	Source        string    `json:"source,omitempty"`
	SourceID      string    `json:"sourceId,omitempty"`
	Destination   string    `json:"destination,omitempty"`
	DestinationID string    `json:"destinationId,omitempty"`
	Port          uint16    `json:"port,omitempty"`
	Wanted        string    `json:"wanted,omitempty"` // address that was asked for
	From          string    `json:"from,omitempty"`   // inbound: the caller's address
	Method        string    `json:"method,omitempty"`
	Path          string    `json:"path,omitempty"` // without its query
	Host          string    `json:"host,omitempty"`

	Route    string   `json:"route,omitempty"`
	Rule     int      `json:"rule"`
	Backend  string   `json:"backend,omitempty"`
	Decision *Decided `json:"decision,omitempty"` // nil: no policy was asked
	Refused  *Refused `json:"refused,omitempty"`  // nil: nothing else refused it
	Attempts []Tried  `json:"attempts,omitempty"`
	Made     int      `json:"made"` // attempts, those that are not listed too

	Status   int     `json:"status,omitempty"`
	GRPC     *int    `json:"grpc,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	Answered float64 `json:"answered,omitempty"` // until the head of the response was there
	Took     float64 `json:"took"`
	Sent     int64   `json:"sent"`     // bytes of the request
	Received int64   `json:"received"` // bytes of the response
}

// Decided is what policies said.
type Decided struct {
	Verdict string `json:"verdict"`
	Policy  string `json:"policy,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Absent  bool   `json:"absent,omitempty"`  // nothing allowed it
	Nearest string `json:"nearest,omitempty"` // the rule that came closest, and what was missing
	Dry     string `json:"dry,omitempty"`     // what policies in dry run would have made of it, if that is something else
	DryBy   string `json:"dryBy,omitempty"`
	Audit   string `json:"audit,omitempty"`

	Authorizer string `json:"authorizer,omitempty"` // external, that was asked
	Word       string `json:"word,omitempty"`       // what it has said: "agreed", "refused", "no answer"
	External   string `json:"external,omitempty"`   // the policy and rule that ask it
}

// Refused is what refused where no authorization policy did: a token's policy, the mode of a port, what may leave the mesh.
type Refused struct {
	By     string `json:"by,omitempty"`     // policy, or rule
	Issuer string `json:"issuer,omitempty"` // that the token names
	Cause  string `json:"cause,omitempty"`
}

// Tried is one attempt.
type Tried struct {
	Endpoint string  `json:"endpoint"`
	Address  string  `json:"address"`
	From     int     `json:"from"` // out of how many
	Wait     float64 `json:"wait"` // before it, since the request began or the last attempt ended
	Took     float64 `json:"took"`
	Reason   string  `json:"reason,omitempty"` // "": it answered
}

// Found is what a mesh's proxies have told.
type Found struct {
	Of     []Explained `json:"of"`     // of each request the caller's view before the server's, the newest request first
	Asked  int         `json:"asked"`  // proxies that have answered
	Silent []Silent    `json:"silent"` // workloads whose proxies have not
	Names  []string    `json:"-"`      // of the workloads whose proxies were asked, "namespace/workload"
}

// Silent is a workload whose proxy has not told what it remembers.
type Silent struct {
	Workload string `json:"workload"` // "namespace/workload"
	Why      string `json:"why"`
}

// Choice is which requests are wanted of what several proxies have told.
type Choice struct {
	Service        string // to or from it ("reviews", "reviews.shop"); "": any
	Last           int    // at most so many requests
	Denied, Failed bool   // as in Question, by any proxy's view: what one has denied the other has only passed on
}

// Choose answers the last requests, of each the caller's view before the server's, the newest request first.
func (c *Choice) Choose(all []Explained) []Explained {
	groups := map[string][]Explained{}
	var keys []string
	for i := range all {
		e := &all[i]
		if !c.about(e) {
			continue
		}
		k := cmp.Or(e.Request, fmt.Sprintf("#%d", i)) // a relayed connection has no id
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], *e)
	}
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b Explained) int {
			return cmp.Or(cmp.Compare(b.Direction, a.Direction), a.Began.Compare(b.Began))
		})
	}
	slices.SortStableFunc(keys, func(a, b string) int { return groups[b][0].Began.Compare(groups[a][0].Began) })
	keys = slices.DeleteFunc(keys, func(k string) bool { return !slices.ContainsFunc(groups[k], c.wanted) })
	out := []Explained{}
	for _, k := range keys[:min(len(keys), c.Last)] {
		out = append(out, groups[k]...)
	}
	return out
}

// about reports whether a view is of a request to or from the service.
func (c *Choice) about(e *Explained) bool {
	for _, s := range []string{e.Service + "." + e.Namespace, e.Source, e.Destination} {
		if s == c.Service || strings.HasPrefix(s, c.Service+".") && !strings.Contains(c.Service, ".") {
			return true
		}
	}
	return c.Service == ""
}

// wanted reports whether one proxy's view is of a request that is asked for.
func (c *Choice) wanted(e Explained) bool {
	denied := e.Refused != nil || e.Decision != nil && (e.Decision.Verdict == "denied" || e.Decision.Dry == "denied")
	return (!c.Denied || denied) && (!c.Failed || denied || e.Reason != "" || e.Status >= 500)
}
