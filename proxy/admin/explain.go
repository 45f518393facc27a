package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// Bounds of an answer.
const (
	defaultLast = 20
	maxLast     = 500
)

// Wanted is which records are asked for.
type Wanted struct {
	ID     string // x-request-id; "": any
	Denied bool   // those that policies have denied, or would
	Failed bool   // those that failed or were denied
	Last   int    // at most so many
}

// Takes reports whether a record is one of them.
func (w *Wanted) Takes(r *record.Record) bool {
	denied := r.Decision.Verdict == record.Denied || r.Decision.Dry == record.Denied
	return (w.ID == "" || string(r.RequestID) == w.ID) && (!w.Denied || denied) && (!w.Failed || observe.Troubled(r))
}

// Explained is one record as /explain tells it. Times are in milliseconds.
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
	Method        string    `json:"method,omitempty"`
	Path          string    `json:"path,omitempty"` // without its query
	Host          string    `json:"host,omitempty"`

	Route    string   `json:"route,omitempty"`
	Rule     int      `json:"rule"`
	Backend  string   `json:"backend,omitempty"`
	Decision *Decided `json:"decision,omitempty"` // nil: no policy was asked
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

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	wanted := Wanted{ID: q.Get("id"), Last: defaultLast}
	wanted.Denied, _ = strconv.ParseBool(q.Get("denied"))
	wanted.Failed, _ = strconv.ParseBool(q.Get("failed"))
	if n, err := strconv.Atoi(q.Get("last")); err == nil && n > 0 {
		wanted.Last = min(n, maxLast)
	}
	out := []Explained{}
	for _, f := range s.cfg.Flight(wanted) {
		e := explained(&f.Record)
		e.Workload, e.Namespace, e.Service = s.cfg.Info["workload"], s.cfg.Info["namespace"], s.cfg.Info["service"]
		out = append(out, e)
	}
	s.answer(w, out)
}

// explained tells a record. The query of a target is left out: it may be secret.
func explained(r *record.Record) Explained {
	path, _, _ := strings.Cut(string(r.Path), "?")
	e := Explained{Direction: "outbound", Began: r.Wall, Request: string(r.RequestID), Protocol: r.Protocol.String(), TCP: r.TCP, MTLS: r.MTLS, SourceID: r.SourceID,
		DestinationID: r.DestinationID, Port: r.Port, Method: r.Method, Path: path, Host: string(r.Authority), Route: r.Route, Rule: r.Rule, Made: r.NAttempts,
		Status: r.Status, Reason: r.Reason, Took: ms(r.End - r.Start), Sent: r.RequestBytes, Received: r.ResponseBytes}
	if r.Direction == record.Inbound {
		e.Direction = "inbound"
	}
	if !r.Source.IsZero() {
		e.Source = r.Source.String()
	}
	if !r.Destination.IsZero() {
		e.Destination = r.Destination.String()
	}
	if !r.Backend.Service.IsZero() {
		e.Backend = r.Backend.String()
	}
	if r.GRPC >= 0 {
		g := r.GRPC
		e.GRPC = &g
	}
	if r.Head > 0 {
		e.Answered = ms(r.Head - r.Start)
	}
	last := r.Start
	for i := range r.Attempts[:min(r.NAttempts, record.MaxAttempts)] {
		a := &r.Attempts[i]
		end := a.End
		if end == 0 {
			end = r.End
		}
		e.Attempts = append(e.Attempts, Tried{a.Workload, a.Address.String(), a.From, ms(max(a.Start-last, 0)), ms(end - a.Start), a.Reason})
		last = end
	}
	e.Decision = decided(&r.Decision)
	return e
}

func decided(d *record.Decision) *Decided {
	if d.Verdict == record.Unasked {
		return nil
	}
	out := &Decided{Verdict: d.Verdict.String(), Policy: d.Policy, Rule: d.Rule, Absent: d.Absent, Nearest: d.Nearest, Dry: d.Dry.String(),
		DryBy: strings.TrimSpace(d.DryPolicy + " " + d.DryRule), Audit: strings.TrimSpace(d.Audit + " " + d.AuditRule)}
	if d.DryAbsent {
		out.DryBy = "nothing allows it"
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
