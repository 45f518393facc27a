package admin_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// TestExplain: a record is told with its decision and attempts, by its id, and without its query.
func TestExplain(t *testing.T) {
	o := observe.New(observe.Config{Flight: 8})
	defer o.Close()
	c := o.Recorder()
	for _, id := range []string{"one", "two"} {
		r := &record.Record{}
		r.Reset()
		r.Direction, r.Wall, r.Start, r.Head, r.End = record.Inbound, time.Unix(1_800_000_000, 0), time.Second, 1200*time.Millisecond, 1300*time.Millisecond
		r.Source, r.Method, r.Path, r.RequestID, r.Status = model.ServiceName{Namespace: "default", Name: "cart"}, "GET", []byte("/a?secret=1"), []byte(id), 403
		r.Decision = record.Decision{Verdict: record.Denied, Absent: true, Nearest: "p r: method GET instead of POST", Dry: record.Allowed, DryPolicy: "q", DryRule: "s",
			Word: record.Unanswered, Authorizer: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "auth"}, Port: 9000}, External: "x", ExternalRule: "y",
			Refusal: record.Refusal{By: "b", Issuer: "i", Cause: "c"}}
		r.From = netip.MustParseAddr("10.0.0.9")
		r.NAttempts = 6
		r.Attempts[0] = record.Attempt{Workload: "w", From: 3, Reason: "connect_failed", Start: 1010 * time.Millisecond, End: 1020 * time.Millisecond}
		r.Attempts[1] = record.Attempt{Workload: "v", From: 3, Start: 1050 * time.Millisecond}
		c.Done(r)
	}
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := admin.Start(admin.Config{Admin: l, Observer: o, Explain: func(q flight.Question) []flight.Explained {
		return admin.Explain(c.Flight(func(r *record.Record) bool { return admin.Takes(&q, r) }, q.Last), "cart-1", "default", "cart")
	}})
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for query, want := range map[string]int{"": 2, "?id=two": 1, "?id=three": 0, "?denied=true&last=1": 1, "?failed=true": 2, "?last=-3": 2} {
		resp, err := client.Get("http://proxy/explain" + query)
		if err != nil {
			t.Fatal(err)
		}
		var list []flight.Explained
		err = json.NewDecoder(resp.Body).Decode(&list)
		resp.Body.Close()
		if err != nil || len(list) != want {
			t.Fatalf("%s: %d, %v", query, len(list), err)
		}
		if query != "?id=two" {
			continue
		}
		e := list[0]
		if e.Request != "two" || e.Workload != "cart-1" || e.Path != "/a" || e.Answered != 200 || e.Took != 300 || e.Made != 6 || len(e.Attempts) != record.MaxAttempts {
			t.Errorf("%+v", e)
		}
		if a := e.Attempts[0]; a.Wait != 10 || a.Took != 10 || a.Reason != "connect_failed" || a.From != 3 {
			t.Errorf("%+v", a)
		}
		if a := e.Attempts[1]; a.Wait != 30 || a.Took != 250 {
			t.Errorf("%+v", a)
		}
		if d := e.Decision; d == nil || !d.Absent || !strings.HasPrefix(d.Nearest, "p r") || d.Dry != "allowed" || d.DryBy != "q s" || d.Word != "no answer" || d.Authorizer != "auth.default:9000" || d.External != "x y" {
			t.Errorf("%+v", e.Decision)
		}
		if f := e.Refused; f == nil || *f != (flight.Refused{By: "b", Issuer: "i", Cause: "c"}) || e.From != "10.0.0.9" {
			t.Errorf("%+v %s", f, e.From)
		}
	}
}
