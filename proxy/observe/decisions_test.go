package observe_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

func asked(caller, method, path string) *record.Record {
	r := &record.Record{}
	r.Reset()
	r.Direction, r.Wall, r.Protocol, r.Port = record.Inbound, time.Unix(1_800_000_000, 0), model.ProtocolHTTP, 80
	r.SourceID, r.Method, r.Path, r.Authority = "spiffe://tulle.local/ns/default/sa/"+caller, method, []byte(path), []byte("Reviews:80")
	r.RequestID, r.Status = []byte("id-"+path), 200
	return r
}

// TestDecisions: what is the same is counted together; paths are folded when there are many; nothing is lost without being counted.
func TestDecisions(t *testing.T) {
	o := observe.New(observe.Config{Decisions: 8})
	defer o.Close()
	c := o.Recorder()
	for range 3 {
		c.Done(asked("cart", "GET", "/a?x=1"))
	}
	odd := asked("cart", "GET", "/x/../b%41//c?x=1")
	odd.Named = []byte("h:x-team=blue")
	c.Done(odd)
	if r := c.Decisions(); len(r.Of) != 2 || !slices.ContainsFunc(r.Of, func(s decision.Seen) bool { return s.Path == "/bA/c" && s.Fields == "h:x-team=blue" }) {
		t.Errorf("policies see another path: %+v", r)
	}
	for range 3 {
		c.Done(asked("cart", "GET", "/a?x=1"))
	}
	denied := asked("cart", "POST", "/a")
	denied.Decision = record.Decision{Verdict: record.Denied, Policy: "AuthorizationPolicy/default/p", Rule: "r"}
	c.Done(denied)
	out := asked("cart", "GET", "/outbound")
	out.Direction = record.Outbound
	c.Done(out)
	r := c.Decisions()
	if len(r.Of) != 2 || r.Others != 0 {
		t.Fatalf("%+v", r)
	}
	for _, s := range r.Of {
		switch {
		case s.Method == "GET" && s.Count == 3 && s.Path == "/a" && s.Host == "reviews" && s.Verdict == decision.Allowed && s.Request == "id-/a?x=1":
		case s.Method == "POST" && s.Count == 1 && s.Verdict == decision.Denied && s.Policy == "AuthorizationPolicy/default/p" && s.Rule == "r":
		default:
			t.Errorf("%+v", s)
		}
	}
	if r := c.Decisions(); len(r.Of) != 0 {
		t.Errorf("told twice: %+v", r)
	}
	for i := range 100 {
		c.Done(asked("cart", "GET", fmt.Sprintf("/users/%d", i)))
	}
	for i := range 10 {
		c.Done(asked("cart", "GET", fmt.Sprintf("/word%c", 'a'+i)))
	}
	r = c.Decisions()
	n := r.Others
	for _, s := range r.Of {
		n += s.Count
		if s.Folded && (s.Path != "/users/{id}" || s.Sample != "/users/4") {
			t.Errorf("%+v", s)
		}
	}
	if len(r.Of) != 8 || n != 110 || r.Others != 7 {
		t.Errorf("%d entries, %d counted, %d others", len(r.Of), n, r.Others)
	}
}

// TestFlight: the last ones are kept, failures longer, and their texts are their own.
func TestFlight(t *testing.T) {
	o := observe.New(observe.Config{Flight: 40})
	defer o.Close()
	c := o.Recorder()
	all := func(*record.Record) bool { return true }
	if c.Flight(all, 10) != nil {
		t.Error("something is known at first")
	}
	path := []byte("/denied")
	r := asked("cart", "GET", "")
	r.Path, r.Reason, r.Start = path, "authz_denied", 1
	c.Done(r)
	copy(path, "xxxxxxx")
	for i := range 100 {
		r := asked("cart", "GET", "/a")
		r.Start, r.Wall = time.Duration(i+2), r.Wall.Add(time.Duration(i+1)*time.Second)
		c.Done(r)
	}
	got := c.Flight(all, 1000)
	if len(got) != 41 || string(got[0].Path) != "/a" || got[0].Start != 101 || string(got[40].Path) != "/denied" {
		t.Errorf("%d, the last is %s", len(got), got[len(got)-1].Path)
	}
	if got := c.Flight(observe.Troubled, 1000); len(got) != 1 {
		t.Errorf("%d in trouble", len(got))
	}
}

// TestNoAllocationDecisions: what was seen before costs no allocation, with everything switched on.
func TestNoAllocationDecisions(t *testing.T) {
	o := observe.New(observe.Config{Decisions: 256, Flight: 16})
	defer o.Close()
	c := o.Recorder()
	r := asked("cart", "GET", "/users/17")
	r.Reason = "authz_denied"
	for range 100 {
		c.Done(r)
	}
	if n := testing.AllocsPerRun(1000, func() { c.Done(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestUnproven: who comes in plaintext is told by address, what is more than there is room for is counted.
func TestUnproven(t *testing.T) {
	o := observe.New(observe.Config{Decisions: 8})
	defer o.Close()
	c := o.Recorder()
	come := func(from string, change func(*record.Record)) {
		r := asked("", "GET", "/a?secret=1")
		r.SourceID, r.From = "", netip.MustParseAddr(from)
		if change != nil {
			change(r)
		}
		c.Done(r)
	}
	come("192.0.2.1", nil)
	come("::ffff:192.0.2.1", func(r *record.Record) { r.Reason, r.Status = "mtls_required", 403 })
	come("192.0.2.1", func(r *record.Record) { r.TCP = true })
	come("192.0.2.2", func(r *record.Record) { r.MTLS = true })
	come("192.0.2.3", func(r *record.Record) { r.Direction = record.Outbound })
	got := c.Decisions().Unproven
	slices.SortFunc(got, func(a, b decision.Unproven) int { return cmp.Compare(b.Count, a.Count) })
	at := time.Unix(1_800_000_000, 0).UnixMilli()
	want := []decision.Unproven{{Port: 80, Address: "192.0.2.1", Count: 2, Refused: 1, First: at, Last: at, Sample: "GET /a"}, {Port: 80, Address: "192.0.2.1", TCP: true, Count: 1, First: at, Last: at}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for i := range 300 {
		come(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), nil)
	}
	r := c.Decisions()
	if len(r.Unproven) == 0 || len(r.Unproven) > 100 || len(r.Unproven)+int(r.UnprovenOthers) != 300 {
		t.Errorf("%d callers and %d others of 300", len(r.Unproven), r.UnprovenOthers)
	}
	if r := c.Decisions(); !r.Empty() {
		t.Errorf("told twice: %+v", r)
	}
}

// TestDecisionsKnow: addresses are told as long as there are few, and what was refused before policies were asked is no permission.
func TestDecisionsKnow(t *testing.T) {
	o := observe.New(observe.Config{Decisions: 1000})
	defer o.Close()
	c := o.Recorder()
	for i := range 100 {
		r := asked("cart", "GET", "/a")
		r.From, r.Published = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), true
		c.Done(r)
	}
	refused := asked("cart", "GET", "/b")
	refused.Reason, refused.Status, refused.Named = "token_missing", 401, decision.AppendToken(nil, "abc", "")
	c.Done(refused)
	known, unknown := 0, uint64(0)
	for _, s := range c.Decisions().Of {
		switch k := s.Known(); {
		case s.Path == "/b" && (!s.Refused("token_missing") || !k.Token || k.Issuer != ""):
			t.Errorf("%+v", s)
		case s.Path == "/b":
		case k.Caller.IsValid() && k.Published:
			known++
		default:
			unknown += s.Count
		}
	}
	if known < 16 || known > 64 || uint64(known)+unknown != 100 {
		t.Errorf("%d addresses are told, %d requests are without", known, unknown)
	}
}
