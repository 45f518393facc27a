package admission_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// service is a rate-limit service that answers when the test says so.
type service struct {
	full  bool
	asked []*model.RateQuestion
	then  []func(*model.RateAnswer, error)
}

func (s *service) ask(q *model.RateQuestion, then func(*model.RateAnswer, error)) bool {
	if !s.full {
		s.asked, s.then = append(s.asked, q), append(s.then, then)
	}
	return !s.full
}

func global(closed bool, by ...model.RateKey) model.RateLimit {
	return model.RateLimit{Name: "g", By: by, Headers: true, Global: &model.GlobalLimit{Cluster: model.Free("rls"), Domain: "d", Closed: closed}}
}

func TestGlobal(t *testing.T) {
	s := &service{}
	f := gateAsking(t, admission.Config{Ask: s.ask}, &model.Inbound{MaxRequests: 1, Limits: []model.RateLimit{
		global(false, model.RateKey{Kind: model.RateByHeader, Name: "x-key", Key: "key"}, model.RateKey{Kind: model.RateByAddress}),
		global(false, model.RateKey{Kind: model.RateByHeader, Name: "not-there"}),
		global(false, model.RateKey{Kind: model.RateByFixed, Value: "v"}, model.RateKey{Kind: model.RateByHeader, Name: "not-there", Optional: true}),
	}}, nil)
	q := admission.Question{Head: head("GET", "/", "X-Key", "k"), Address: netip.MustParseAddr("10.0.0.1")}
	r := f.enter(q)
	want := []model.Descriptor{{{Key: "key", Value: "k"}, {Key: "remote_address", Value: "10.0.0.1"}}, {{Key: "generic_key", Value: "v"}}}
	if r.outcome != admission.Waiting || len(s.asked) != 1 || s.asked[0].Domain != "d" || s.asked[0].Timeout != 20*time.Millisecond || !reflect.DeepEqual(s.asked[0].Descriptors, want) {
		t.Fatalf("%v, asked %+v", r.outcome, s.asked)
	}
	s.then[0](&model.RateAnswer{Descriptors: []model.DescriptorAnswer{{Requests: 9, Window: time.Minute, Left: 3, Reset: time.Minute}, {}}}, nil)
	if r.outcome != admission.Waiting {
		t.Error("decided outside the loop")
	}
	f.l.turn()
	if r.outcome != admission.Admitted || string(r.AppendState(nil)) != `"g";r=3;t=60` {
		t.Errorf("%v %s", r.outcome, r.AppendState(nil))
	}
	over := f.enter(q)
	s.then[1](&model.RateAnswer{Descriptors: []model.DescriptorAnswer{{}, {Over: true, Reset: 7 * time.Second}}}, nil)
	f.l.turn()
	if over.outcome != admission.Refused || over.Reason != failure.RateLimited || over.Retry != 7*time.Second {
		t.Errorf("%v %v %v", over.outcome, over.Reason, over.Retry)
	}
	gone := f.enter(q)
	gone.Leave()
	s.then[2](nil, nil)
	f.l.turn()
	if gone.outcome != admission.Waiting {
		t.Error("who has gone is told")
	}
	late := f.enter(q) // admitted by the service, but there is no place
	s.then[3](&model.RateAnswer{}, nil)
	f.l.turn()
	if late.outcome != admission.Refused || late.Reason != failure.Shed {
		t.Errorf("%v %v", late.outcome, late.Reason)
	}
}

// TestGlobalText: whatever a client sends, what is asked is text; the protocol has no other, and a question that cannot be
// written would be let through.
func TestGlobalText(t *testing.T) {
	s := &service{}
	f := gateAsking(t, admission.Config{Ask: s.ask}, &model.Inbound{Limits: []model.RateLimit{
		global(false, model.RateKey{Kind: model.RateByHeader, Name: "x-key"}, model.RateKey{Kind: model.RateByPath}, model.RateKey{Kind: model.RateByMethod}),
	}}, nil)
	f.enter(admission.Question{Head: head("G\xff", "/\xff", "X-Key", "a\xe9b")})
	f.enter(admission.Question{Head: head("GET", "/", "X-Key", strings.Repeat("é", 600)+"x")})
	f.enter(admission.Question{Head: head("GET", "/x"+strings.Repeat("é", 600), "X-Key", "x")})
	for i, q := range s.asked {
		for _, e := range q.Descriptors[0] {
			if !utf8.ValidString(e.Value) || len(e.Value) == 0 {
				t.Errorf("request %d: %s %q", i, e.Key, e.Value)
			}
		}
	}
	if v := s.asked[0].Descriptors[0][0].Value; v != "a?b" {
		t.Errorf("%q", v)
	}
}

// TestGlobalWithoutAnswer: the limit says what that means.
func TestGlobalWithoutAnswer(t *testing.T) {
	for _, closed := range []bool{false, true} {
		want := admission.Admitted
		if closed {
			want = admission.Refused
		}
		s := &service{}
		in := &model.Inbound{Limits: []model.RateLimit{global(closed, model.RateKey{Kind: model.RateByFixed, Value: "v"})}}
		f := gateAsking(t, admission.Config{Ask: s.ask}, in, nil)
		r := f.enter(admission.Question{})
		s.then[0](nil, errors.New("deadline"))
		f.l.turn()
		s.full = true
		if full := f.enter(admission.Question{}); r.outcome != want || full.outcome != want || f.Load().Unanswered != 2 {
			t.Errorf("closed: %v: %v, without room %v; %d", closed, r.outcome, full.outcome, f.Load().Unanswered)
		}
		if nobody := gate(t, in, nil).enter(admission.Question{}); nobody.outcome != want {
			t.Errorf("closed: %v, with nobody to ask: %v", closed, nobody.outcome)
		}
	}
}

// TestGlobalOfControlPlane: it is told which limit, and how much that lets through.
func TestGlobalOfControlPlane(t *testing.T) {
	s := &service{}
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	f := gateAsking(t, admission.Config{Ask: s.ask}, nil, &model.RouteTable{Name: name, Routes: []model.Route{{Name: "HTTPRoute/default/x", Rule: 2, Match: model.Match{Path: "/"},
		Limits: []model.RateLimit{{Name: "n", Requests: 100, Window: time.Minute, Burst: 7, Global: &model.GlobalLimit{Domain: "tulle"}, By: []model.RateKey{{Kind: model.RateByCaller}}}}}}})
	f.enter(from("shop"))
	want := []model.Descriptor{{{Key: "source_cluster", Value: "shop.default"}, {Key: model.LimitKey, Value: "cart.default:80/HTTPRoute/default/x/2/n"}, {Key: model.RateKeyOfLimit, Value: "100/1m0s/7"}}}
	if len(s.asked) != 1 || !reflect.DeepEqual(s.asked[0].Descriptors, want) {
		t.Errorf("%+v", s.asked)
	}
}
