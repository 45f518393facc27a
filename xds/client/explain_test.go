package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/xds/client"
	"github.com/tulle-mesh/tulle/xds/server"
	"github.com/tulle-mesh/tulle/xds/xdstest"
)

// asker takes sessions, and asks those that join.
type asker struct {
	chief
	joined chan server.Ask
	told   chan server.Told
}

func (a asker) Join(h server.Hello, ask server.Ask) (func(server.Told), func()) {
	a.joined <- ask
	return func(t server.Told) { a.told <- t }, func() {}
}

// TestExplain: a proxy answers what it is asked on its session, a few questions at a time, and says why it cannot; one that remembers
// nothing is not asked.
func TestExplain(t *testing.T) {
	a := asker{chief{newLog(), make(chan struct{})}, make(chan server.Ask, 9), make(chan server.Told, 99)}
	s := xdstest.New(t, a)
	release := make(chan struct{})
	begin := func(explain func(flight.Question) ([]byte, error)) server.Ask {
		c, err := client.New(client.Config{Address: s.Address, Identity: s.Authority.Issue(cartID), Server: xdstest.ID, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
			Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart"}, Explain: explain})
		if err != nil {
			t.Fatal(err)
		}
		c.Start(newLog())
		t.Cleanup(c.Close)
		select {
		case ask := <-a.joined:
			return ask
		case <-time.After(20 * time.Second):
			t.Fatal("it never joins")
		}
		return nil
	}
	ask := begin(func(q flight.Question) ([]byte, error) {
		switch q.ID {
		case "bad":
			return nil, errors.New("it is broken")
		case "long":
			return []byte(strings.Repeat("x", flight.MaxJSON+1)), nil
		case "slow":
			<-release
		}
		return []byte(q.ID), nil
	})
	next := func() server.Told {
		t.Helper()
		select {
		case x := <-a.told:
			return x
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told")
		}
		return server.Told{}
	}
	for i, want := range []server.Told{{ID: 1, JSON: []byte("one")}, {ID: 2, Why: "it is broken"}, {ID: 3, Why: "its proxy has told more than is taken"}} {
		if err := ask(want.ID, flight.Question{ID: []string{"one", "bad", "long"}[i], Last: 5}); err != nil {
			t.Fatal(err)
		}
		if got := next(); got.ID != want.ID || string(got.JSON) != string(want.JSON) || got.Why != want.Why {
			t.Errorf("%d %.40q %q", got.ID, got.JSON, got.Why)
		}
	}
	for id := range uint64(4) {
		if err := ask(10+id, flight.Question{ID: "slow"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(20, flight.Question{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	if got := next(); got.ID != 20 || !strings.Contains(got.Why, "asked too much") {
		t.Errorf("the fifth at the same time: %+v", got)
	}
	close(release)
	for range 4 {
		if got := next(); got.Why != "" || string(got.JSON) != "slow" {
			t.Errorf("%+v", got)
		}
	}
	if err := begin(nil)(1, flight.Question{}); err == nil || !strings.Contains(err.Error(), "tulle upgrade") {
		t.Error(err)
	}
}
