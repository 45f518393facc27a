package limit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/limit"
)

// alike has had nothing of anybody.
type alike struct{}

func (alike) Start(int) int64 { return 0 }

func TestLineOrder(t *testing.T) {
	var l limit.Line
	w := make([]limit.Waiter, 7)
	classes := []model.Class{model.ClassBatch, model.ClassDefault, model.ClassCritical, model.ClassDefault, model.ClassBatch, model.ClassCritical}
	for i, c := range classes {
		if out := l.Push(&w[i], c, time.Duration(i), 6); out != nil {
			t.Fatal("somebody was pushed out of a line with room")
		}
	}
	if out := l.Push(&w[6], model.ClassCritical, 6, 6); out != &w[0] {
		t.Error("not the least important who has waited longest was pushed out")
	}
	if at, ok := l.Oldest(); !ok || at != 1 {
		t.Errorf("the oldest is of %v", at)
	}
	for _, want := range []int{6, 5, 2, 3, 1, 4} { // by class, the newest first
		if got := l.Pop(alike{}); got != &w[want] {
			t.Fatalf("not %d is next", want)
		}
	}
	if l.Len() != 0 || l.Pop(alike{}) != nil {
		t.Error("somebody is left")
	}
	l.Push(&w[1], model.ClassBatch, 9, 1)
	if out := l.Push(&w[2], model.ClassBatch, 10, 0); out == nil || l.Len() != 1 {
		t.Error("the bound does not hold")
	}
}

func TestLineAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l limit.Line
		all := make([]limit.Waiter, 8)
		type place struct{ i, rank, at int }
		var have []place
		rank := map[model.Class]int{model.ClassCritical: 0, model.ClassDefault: 1, model.ClassBatch: 2}
		for now := range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 7).Draw(t, "who")
			switch {
			case rapid.Bool().Draw(t, "remove"):
				l.Remove(&all[i])
				for k := range have {
					if have[k].i == i {
						have = append(have[:k], have[k+1:]...)
						break
					}
				}
			case !all[i].Waiting():
				c := rapid.SampledFrom([]model.Class{model.ClassCritical, model.ClassDefault, model.ClassBatch}).Draw(t, "class")
				l.Push(&all[i], c, time.Duration(now), 100)
				have = append(have, place{i, rank[c], now})
			}
			if l.Len() != len(have) {
				t.Fatalf("%d wait, want %d", l.Len(), len(have))
			}
		}
		for len(have) > 0 {
			best := 0
			for k, p := range have {
				if b := have[best]; p.rank < b.rank || p.rank == b.rank && p.at > b.at {
					best = k
				}
			}
			if got := l.Pop(alike{}); got != &all[have[best].i] {
				t.Fatalf("another one is next")
			}
			have = append(have[:best], have[best+1:]...)
		}
	})
}

func TestShares(t *testing.T) {
	for limited := 1; limited < 500; limited++ {
		b, d, c := limit.Share(model.ClassBatch, limited), limit.Share(model.ClassDefault, limited), limit.Share(model.ClassCritical, limited)
		if b < 1 || b > d || d != limited || c <= d {
			t.Fatalf("of %d: batch %d, default %d, critical %d", limited, b, d, c)
		}
		if f := limit.ShareFixed(model.ClassCritical, limited); f != limited {
			t.Fatalf("critical goes beyond a fixed limit: %d of %d", f, limited)
		}
	}
}
