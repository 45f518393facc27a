package limit_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/limit"
)

func TestNothingAllocates(t *testing.T) {
	a := limit.NewAdaptive(limit.Settings{}, 0, 1)
	var l limit.Line
	var w limit.Waiter
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 200 * time.Millisecond
		a.Update(limit.Window{Count: 100, Mean: time.Millisecond, Busiest: 10}, now)
		l.Push(&w, 0, now, 10)
		l.Pop(alike{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
