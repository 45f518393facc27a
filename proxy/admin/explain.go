package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// defaultLast is how many records are told to who does not say.
const defaultLast = 20

// Takes reports whether a record is one that q asks for.
func Takes(q *flight.Question, r *record.Record) bool {
	denied := r.Decision.Verdict == record.Denied || r.Decision.Dry == record.Denied || r.Decision.Refusal.Refused()
	return (q.ID == "" || string(r.RequestID) == q.ID) && (!q.Denied || denied) && (!q.Failed || observe.Troubled(r))
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	q := flight.Question{ID: v.Get("id"), Last: defaultLast}
	q.Denied, _ = strconv.ParseBool(v.Get("denied"))
	q.Failed, _ = strconv.ParseBool(v.Get("failed"))
	if n, err := strconv.Atoi(v.Get("last")); err == nil && n > 0 {
		q.Last = min(n, flight.MaxLast)
	}
	s.answer(w, s.cfg.Explain(q))
}

// Explain tells what flight recorders keep. A query of a target is left out: it may be secret.
func Explain(list []*observe.Flown, workload, namespace, service string) []flight.Explained {
	out := make([]flight.Explained, 0, len(list))
	for _, f := range list {
		e := explained(&f.Record)
		e.Workload, e.Namespace, e.Service = workload, namespace, service
		out = append(out, e)
	}
	return out
}

func explained(r *record.Record) flight.Explained {
	path, _, _ := strings.Cut(string(r.Path), "?")
	e := flight.Explained{Direction: "outbound", Began: r.Wall, Request: string(r.RequestID), Protocol: r.Protocol.String(), TCP: r.TCP, MTLS: r.MTLS, SourceID: r.SourceID,
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
	if r.Wanted.IsValid() && r.Direction == record.Outbound {
		e.Wanted = r.Wanted.String()
	}
	if r.From.IsValid() && r.Direction == record.Inbound {
		e.From = r.From.String()
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
		e.Attempts = append(e.Attempts, flight.Tried{Endpoint: a.Workload, Address: a.Address.String(), From: a.From, Wait: ms(max(a.Start-last, 0)), Took: ms(end - a.Start), Reason: a.Reason})
		last = end
	}
	e.Decision = decided(&r.Decision)
	if f := &r.Decision.Refusal; f.Refused() {
		e.Refused = &flight.Refused{By: f.By, Issuer: f.Issuer, Cause: f.Cause}
	}
	return e
}

func decided(d *record.Decision) *flight.Decided {
	if d.Verdict == record.Unasked {
		return nil
	}
	out := &flight.Decided{Verdict: d.Verdict.String(), Policy: d.Policy, Rule: d.Rule, Absent: d.Absent, Nearest: d.Nearest, Dry: d.Dry.String(),
		DryBy: strings.TrimSpace(d.DryPolicy + " " + d.DryRule), Audit: strings.TrimSpace(d.Audit + " " + d.AuditRule),
		Authorizer: d.AuthorizerName(), Word: d.Word.String(), External: strings.TrimSpace(d.External + " " + d.ExternalRule)}
	if d.DryAbsent {
		out.DryBy = "nothing allows it"
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
