package recall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/control/recall"
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/xds/server"
)

// member joins a proxy that answers as does says; nil: it never does.
func member(r *recall.Recall, name string, does func(q flight.Question) server.Told) (left func()) {
	var told func(server.Told)
	told, left = r.Join(server.Hello{Namespace: "shop", Workload: name, Service: "cart"}, func(id uint64, q flight.Question) error {
		if does == nil {
			return nil
		}
		a := does(q)
		if a.Why == "refused" {
			return errors.New(a.Why)
		}
		a.ID = id
		told(a)
		told(a) // said twice, it counts once
		return nil
	})
	return left
}

func views(list ...flight.Explained) server.Told {
	text, err := json.Marshal(list)
	if err != nil {
		return server.Told{Why: err.Error()}
	}
	return server.Told{JSON: text}
}

// TestAsk: what proxies tell is put together, each is believed about itself only, and who does not tell is named with the reason.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recall.Recall{}
		member(r, "honest", func(q flight.Question) server.Told {
			return views(flight.Explained{Request: q.ID, Status: q.Last})
		})
		member(r, "liar", func(q flight.Question) server.Told {
			return views(flight.Explained{Request: q.ID, Namespace: "bank", Workload: "vault", Service: "vault"})
		})
		member(r, "mumbles", func(flight.Question) server.Told { return server.Told{JSON: []byte("{")} })
		member(r, "much", func(flight.Question) server.Told { return views(make([]flight.Explained, flight.MaxLast+1)...) })
		member(r, "sorry", func(flight.Question) server.Told { return server.Told{Why: "cannot"} })
		member(r, "old", func(flight.Question) server.Told { return server.Told{Why: "refused"} })
		member(r, "dead", nil)
		leaves := member(r, "leaves", nil)
		begun := time.Now()
		time.AfterFunc(time.Second, leaves)
		got, err := r.Ask(t.Context(), flight.Question{ID: "x", Last: 7})
		if err != nil || time.Since(begun) != recall.Patience {
			t.Fatalf("%v after %s", err, time.Since(begun))
		}
		if got.Asked != 2 || len(got.Of) != 2 {
			t.Errorf("%+v", got)
		}
		for _, e := range got.Of {
			if e.Namespace != "shop" || e.Service != "cart" || e.Request != "x" || e.Workload == "honest" && e.Status != 7 {
				t.Errorf("%+v", e)
			}
		}
		want := "[{shop/dead its proxy has not answered in time} {shop/leaves it has just gone} {shop/much its proxy has answered what cannot be read} " +
			"{shop/mumbles its proxy has answered what cannot be read} {shop/old refused} {shop/sorry cannot}]"
		if s := fmt.Sprint(got.Silent); s != want {
			t.Error(s)
		}
	})
}

// TestAskIsBounded: a few ask at the same time, and who gives up is not waited for.
func TestAskIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recall.Recall{}
		if got, err := r.Ask(t.Context(), flight.Question{}); err != nil || got.Asked != 0 {
			t.Errorf("nobody is there: %+v, %v", got, err)
		}
		member(r, "dead", nil)
		ctx, giveUp := context.WithCancel(t.Context())
		ended := make(chan error, 4)
		for range 4 {
			go func() {
				_, err := r.Ask(ctx, flight.Question{})
				ended <- err
			}()
		}
		synctest.Wait()
		if _, err := r.Ask(t.Context(), flight.Question{}); !errors.Is(err, recall.ErrBusy) {
			t.Errorf("the fifth: %v", err)
		}
		giveUp()
		for range 4 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if _, err := r.Ask(ctx, flight.Question{}); err != nil {
			t.Error(err)
		}
	})
}
