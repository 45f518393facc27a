package mem_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func(int64) error) {
		s := mem.New(0)
		return s, func(rev int64) error { s.Compact(rev); return nil }
	})
}

// TestLag: what a slow watch can keep waiting is bounded, and it is told.
func TestLag(t *testing.T) {
	s := mem.New(10)
	defer s.Close()
	w, err := s.Watch(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := s.Put(t.Context(), store.Object{Key: store.Key{Kind: "a", Name: fmt.Sprint(i)}}, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for range w.Events() {
		n++
	}
	if !errors.Is(w.Err(), store.ErrCompacted) || n >= 50 {
		t.Fatalf("%d events, then %v", n, w.Err())
	}
}
