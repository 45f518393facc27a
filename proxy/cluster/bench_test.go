package cluster_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// sitter counts how often it is let go.
type sitter struct {
	rest cluster.Rest
	gone int
}

func (s *sitter) Rested(after time.Duration) {
	if after < 0 || after > cluster.BenchTurn {
		panic(after)
	}
	s.gone++
}

func sit(b *cluster.Bench, c *cluster.Cluster, n int) (all []*sitter) {
	for range n {
		s := &sitter{}
		s.rest.Owner = s
		b.Sit(&s.rest, c)
		all = append(all, s)
	}
	return all
}

func gone(all []*sitter) (n int) {
	for _, s := range all {
		n += s.gone
	}
	return n
}

// TestBench: who waits is let go when the cluster is well, one for each answer, the first one first; a first one by itself where
// another loop has seen it; and nobody while it fails.
func TestBench(t *testing.T) {
	c, eps := two()
	other, others := two()
	k := &clock{now: time.Second}
	var b, far cluster.Bench
	eps[0].Failed(k)
	others[0].Failed(k)
	all, elsewhere, afar := sit(&b, c, 5), sit(&b, other, 2), sit(&far, c, 3)
	b.Well(c, 1)
	b.Turn(1)
	if n := gone(all); n != 0 {
		t.Fatalf("%d were let go while the cluster fails", n)
	}
	b.Leave(&all[1].rest)
	b.Leave(&all[1].rest)
	k.now += time.Second
	eps[1].Succeeded(k, k.now)
	b.Well(c, 1<<63)
	b.Well(c, 1<<63)
	if gone(all) != 2 || all[0].gone != 1 || all[2].gone != 1 {
		t.Errorf("two answers have let %d go", gone(all))
	}
	eps[0].Failed(k)
	b.Well(c, 1)
	b.Turn(1)
	if gone(all) != 2 {
		t.Error("one was let go when the cluster has failed again")
	}
	k.now += time.Second
	eps[0].Succeeded(k, k.now)
	for range 3 {
		far.Turn(7)
	}
	if gone(afar) != 1 {
		t.Errorf("%d were let go on a loop that has seen no answer", gone(afar))
	}
	far.Well(c, 1)
	far.Well(c, 1)
	b.Well(c, 1)
	b.Well(c, 1)
	b.Well(c, 1)
	if gone(afar) != 3 || gone(all) != 4 || gone(elsewhere) != 0 || !far.Empty() || b.Empty() {
		t.Errorf("%d, %d and %d are gone", gone(afar), gone(all), gone(elsewhere))
	}
	later := sit(&b, c, 1) // its failure was of no outage
	b.Well(c, 1)
	if gone(later) != 0 {
		t.Error("one was let go though the cluster was well all the time")
	}
	s := later[0]
	b.Leave(&s.rest)
	if n := testing.AllocsPerRun(100, func() { b.Sit(&s.rest, c); b.Leave(&s.rest) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBenchTurnIsBounded: with very many clusters not all are looked after at once, and none is forgotten.
func TestBenchTurnIsBounded(t *testing.T) {
	var b cluster.Bench
	var all []*sitter
	k := &clock{now: time.Second}
	for range 150 {
		c, eps := two()
		eps[0].Failed(k)
		all = append(all, sit(&b, c, 1)...)
		eps[0].Succeeded(k, k.now)
	}
	for i, want := range []int{64, 128, 150} {
		if b.Turn(uint64(i)); gone(all) != want {
			t.Errorf("%d after turn %d", gone(all), i)
		}
	}
	if !b.Empty() {
		t.Error("somebody is forgotten")
	}
}

// TestLonger: a wait that is over begins again if others have asked in vain meanwhile, but not for ever.
func TestLonger(t *testing.T) {
	c, eps := two()
	k, r := &clock{}, c.Recovery()
	for range recovery.Enough {
		k.fail(eps[0], 20*time.Second, 100*time.Millisecond)
	}
	eps[0].Failed(k)
	from := k.now
	k.now += 5 * time.Second
	if d := r.Longer(k.now, from, from, 3, 0, 0); d != 0 {
		t.Errorf("%v longer though nobody has asked", d)
	}
	for range 50 {
		eps[0].Failed(k)
		k.now += 100 * time.Millisecond
	}
	if d := r.Longer(k.now, from, from, 3, time.Minute, 0); d < 5*time.Second || d > 20*time.Second {
		t.Errorf("%v longer, after 10 s of 20", d)
	}
	if d := r.Longer(k.now, from, from, 3, 11*time.Second, 0); d != time.Second {
		t.Errorf("%v longer, of 11 s", d)
	}
	if d := r.Longer(k.now, from, k.now, 3, time.Minute, 0); d != 0 {
		t.Errorf("%v longer though it is known already", d)
	}
	eps[1].Succeeded(k, k.now)
	if d := r.Longer(k.now, from, from, 3, time.Minute, 0); d != 0 {
		t.Errorf("%v longer though it is over", d)
	}
}
