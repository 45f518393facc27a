package ratelimit_test

import (
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// serve answers a client of a service that decides so.
func serve(t *testing.T, most int, decide ratelimit.Decide) *ratelimit.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	ratelimit.Serve(g, decide)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := ratelimit.NewClient(func() grpc.ClientConnInterface { return conn }, most)
	t.Cleanup(func() {
		c.Close()
		_ = conn.Close()
		g.Stop()
	})
	return c
}

type answer struct {
	a   *model.RateAnswer
	err error
}

func ask(t *testing.T, c *ratelimit.Client, q *model.RateQuestion) answer {
	t.Helper()
	got := make(chan answer, 1)
	if !c.Ask(q, func(a *model.RateAnswer, err error) { got <- answer{a, err} }) {
		t.Fatal("not asked")
	}
	return <-got
}

func TestThereAndBack(t *testing.T) {
	want := &model.RateAnswer{Descriptors: []model.DescriptorAnswer{
		{Requests: 10, Window: time.Minute, Left: 4, Reset: 30 * time.Second}, {Over: true, Requests: 5, Window: 2 * time.Second, Reset: 1500 * time.Millisecond}, {}}}
	q := &model.RateQuestion{Domain: "d", Timeout: 10 * time.Second, Descriptors: []model.Descriptor{{{Key: "a", Value: "b"}, {Key: "c", Value: ""}}, {{Key: "x", Value: "y"}}, {{Key: "z", Value: "z"}}}}
	c := serve(t, 0, func(_ spiffe.ID, got *model.RateQuestion, hits uint32) *model.RateAnswer {
		if got.Domain != q.Domain || !reflect.DeepEqual(got.Descriptors, q.Descriptors) || hits != 1 {
			t.Errorf("asked %+v", got)
		}
		return want
	})
	if got := ask(t, c, q); got.err != nil || !reflect.DeepEqual(got.a, want) {
		t.Errorf("%+v", got)
	}
}

// TestBounds: no more are under way than may be, none lasts longer than it may, and none is left after Close.
func TestBounds(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, 2, func(spiffe.ID, *model.RateQuestion, uint32) *model.RateAnswer {
		<-release
		return &model.RateAnswer{}
	})
	q := &model.RateQuestion{Timeout: 50 * time.Millisecond, Descriptors: []model.Descriptor{{{Key: "a", Value: "b"}}}}
	var ended sync.WaitGroup
	ended.Add(2)
	for range 2 {
		if !c.Ask(q, func(a *model.RateAnswer, err error) {
			if err == nil {
				t.Errorf("%+v without an answer", a)
			}
			ended.Done()
		}) {
			t.Error("not asked")
		}
	}
	if c.Ask(q, nil) {
		t.Error("a third question")
	}
	ended.Wait()
	slow := *q
	slow.Timeout = time.Hour
	for end := time.Now().Add(10 * time.Second); !c.Ask(&slow, func(*model.RateAnswer, error) {}); { // poll: until there is room
		if time.Now().After(end) {
			t.Fatal("no room")
		}
	}
	c.Close()
	if c.Ask(q, nil) {
		t.Error("asked after the end")
	}
	close(release)
	if ratelimit.NewClient(func() grpc.ClientConnInterface { return nil }, 0).Ask(q, nil) {
		t.Error("asked over no connection")
	}
}

func TestRefusedToStrangers(t *testing.T) {
	c := serve(t, 0, func(id spiffe.ID, _ *model.RateQuestion, _ uint32) *model.RateAnswer {
		if !id.IsZero() {
			t.Errorf("%v has proven nothing", id)
		}
		return nil
	})
	if got := ask(t, c, &model.RateQuestion{Timeout: 10 * time.Second}); got.err == nil {
		t.Errorf("%+v", got)
	}
	long := model.Descriptor{{Key: "a", Value: string(make([]byte, 5000))}}
	if got := ask(t, c, &model.RateQuestion{Timeout: 10 * time.Second, Descriptors: []model.Descriptor{long}}); got.err == nil {
		t.Errorf("%+v", got)
	}
}
