package extproc_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/extproc"
	"github.com/tulle-mesh/tulle/xds/extproc/extproctest"
)

// serve answers a client of a picker that decides so, and the picker.
func serve(t *testing.T, decide func(*extproctest.Heard) extproctest.Said) (*extproc.Client, *extproctest.Picker) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, p := grpc.NewServer(), &extproctest.Picker{Decide: decide}
	p.Register(g)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := extproc.NewClient(func() grpc.ClientConnInterface { return conn })
	t.Cleanup(func() {
		c.Close()
		_ = conn.Close()
		g.Stop()
	})
	return c, p
}

type answer struct {
	*model.PickAnswer
	err error
}

func ask(t *testing.T, c *extproc.Client, q *model.PickQuestion) answer {
	t.Helper()
	if q.Timeout == 0 {
		q.Timeout = 10 * time.Second
	}
	got := make(chan answer, 1)
	if !c.Pick(q, func(a *model.PickAnswer, err error) { got <- answer{a, err} }) {
		t.Fatal("not asked")
	}
	return <-got
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); { // poll
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

// TestThereAndBack: everything about a request arrives, what is said about it comes back, and at last the picker is told who has
// answered.
func TestThereAndBack(t *testing.T) {
	long, other := strings.Repeat("0123456789", 20000), "rewritten"
	picked := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8000"), netip.MustParseAddrPort("[fd00::1]:80")}
	for _, x := range []struct {
		name   string
		q      model.PickQuestion
		said   extproctest.Said
		pieces int
		want   model.PickAnswer
	}{
		{"a head", model.PickQuestion{Fields: []model.Header{{Name: ":path", Value: "/a"}, {Name: "x-model", Value: "m"}}, Endpoints: []string{"10.0.0.1:8000", "[fd00::1]:80"}},
			extproctest.Said{Endpoints: "10.0.0.1:8000,[fd00::1]:80"}, 0, model.PickAnswer{Endpoints: picked}},
		{"a field says who", model.PickQuestion{Endpoints: []string{}}, extproctest.Said{Endpoints: " 10.0.0.1:8000 , nonsense, [fd00::1]:80", Header: true}, 0,
			model.PickAnswer{Endpoints: picked, Set: []model.Header{{Name: "x-gateway-destination-endpoint", Value: " 10.0.0.1:8000 , nonsense, [fd00::1]:80"}}}},
		{"a long body", model.PickQuestion{HasBody: true, Body: []byte(long)}, extproctest.Said{Endpoints: "10.0.0.1:8000"}, 4,
			model.PickAnswer{Endpoints: picked[:1], Body: []byte(long), Rewritten: true}},
		{"an empty body", model.PickQuestion{HasBody: true}, extproctest.Said{}, 1, model.PickAnswer{Rewritten: true}},
		{"another body", model.PickQuestion{HasBody: true, Body: []byte("x")}, extproctest.Said{Endpoints: "10.0.0.1:8000", Body: &other}, 1,
			model.PickAnswer{Endpoints: picked[:1], Body: []byte(other), Rewritten: true}},
		{"no body is wanted", model.PickQuestion{HasBody: true, Body: []byte("x")}, extproctest.Said{Endpoints: "10.0.0.1:8000", Plain: true}, 1, model.PickAnswer{Endpoints: picked[:1]}},
		{"fields", model.PickQuestion{}, extproctest.Said{Set: map[string]string{"X-Prefiller": "10.0.0.9:1"}}, 0,
			model.PickAnswer{Set: []model.Header{{Name: "x-prefiller", Value: "10.0.0.9:1"}}}},
		{"fields that nobody may set", model.PickQuestion{}, extproctest.Said{Set: map[string]string{"host": "a", ":path": "/b", "tulle-class": "critical", "x y": "z", "a": "b\r\nc"}}, 0, model.PickAnswer{}},
		{"refused", model.PickQuestion{HasBody: true, Body: []byte("x")}, extproctest.Said{Status: 429, Text: "later"}, 1, model.PickAnswer{Status: 429, Text: []byte("later")}},
		{"refused with a success", model.PickQuestion{}, extproctest.Said{Status: 200}, 0, model.PickAnswer{Status: 503}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, p := serve(t, func(*extproctest.Heard) extproctest.Said { return x.said })
			got := ask(t, c, &x.q)
			if got.err != nil {
				t.Fatal(got.err)
			}
			served := got.Served
			if got.Served = nil; served == nil {
				t.Fatal("nobody wants to know")
			}
			if len(got.Endpoints) == 0 {
				got.Endpoints = nil
			}
			if len(got.Text) == 0 {
				got.Text = nil
			}
			if !reflect.DeepEqual(*got.PickAnswer, x.want) {
				t.Errorf("%.300s, want %.300s", fmt.Sprintf("%+v", *got.PickAnswer), fmt.Sprintf("%+v", x.want))
			}
			heard := p.Heard()
			if len(heard) != 1 || heard[0].Body != string(x.q.Body) || heard[0].Pieces != x.pieces || heard[0].Hinted != (x.q.Endpoints != nil) || strings.Join(heard[0].Subset, " ") != strings.Join(x.q.Endpoints, " ") {
				t.Errorf("heard %.300s", fmt.Sprintf("%+v", heard))
			}
			for _, f := range x.q.Fields {
				if heard[0].Fields[f.Name] != f.Value {
					t.Errorf("heard %v", heard[0].Fields)
				}
			}
			served("10.0.0.1:8000", 200)
			until(t, "the picker knows", func() bool {
				told, ended := p.Served()
				return ended == 1 && len(told) == 1 && told[0] == extproctest.Served{Endpoint: "10.0.0.1:8000", Status: "200"}
			})
		})
	}
}

// TestEnds: a picker that is slow, or that ends the stream, has not answered; a request that comes to nothing ends its stream; nothing is left after Close.
func TestEnds(t *testing.T) {
	release := make(chan struct{})
	c, p := serve(t, func(h *extproctest.Heard) extproctest.Said {
		if h.Fields["slow"] != "" {
			<-release
		}
		return extproctest.Said{Endpoints: "10.0.0.1:1"}
	})
	slow := &model.PickQuestion{Timeout: 30 * time.Millisecond, Fields: []model.Header{{Name: "slow", Value: "1"}}}
	if got := ask(t, c, slow); got.err == nil || !strings.Contains(got.err.Error(), "in time") {
		t.Errorf("%+v", got)
	}
	close(release)
	got := ask(t, c, &model.PickQuestion{})
	got.Served("", 0)
	until(t, "both streams have ended", func() bool { _, ended := p.Served(); return ended == 2 })
	held := ask(t, c, &model.PickQuestion{})
	c.Close()
	held.Served("10.0.0.1:1", 200) // harms nobody
	if c.Pick(&model.PickQuestion{}, nil) {
		t.Error("asked after the end")
	}
	if told, _ := p.Served(); len(told) != 0 {
		t.Errorf("told %v", told)
	}
	if extproc.NewClient(func() grpc.ClientConnInterface { return nil }).Pick(&model.PickQuestion{}, nil) {
		t.Error("asked over no connection")
	}
}

// TestGone: nobody there is known at once.
func TestGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := extproc.NewClient(func() grpc.ClientConnInterface { return conn })
	defer c.Close()
	if got := ask(t, c, &model.PickQuestion{Timeout: time.Hour}); got.err == nil {
		t.Errorf("%+v", got)
	}
}

// TestGrown: a body that a picker makes longer than may be is no answer.
func TestGrown(t *testing.T) {
	huge := strings.Repeat("x", 200<<10)
	c, _ := serve(t, func(*extproctest.Heard) extproctest.Said {
		return extproctest.Said{Endpoints: "10.0.0.1:1", Body: &huge}
	})
	if got := ask(t, c, &model.PickQuestion{HasBody: true, Body: []byte("x")}); got.err == nil || errors.Unwrap(got.err) != nil {
		t.Errorf("%+v", got)
	}
}
