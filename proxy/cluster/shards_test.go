package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

func owns(n int, shards string) model.Endpoint {
	return at(n, "", model.Label{Name: "shards", Value: shards})
}

func sharded(slots uint32, otherwise bool) model.Balancing {
	return model.Balancing{Shards: &model.Shards{Slots: slots, Label: "shards", Any: otherwise}}
}

// TestShardsFollowReference: random ownership, changed again and again: every owner of a slot gets requests of it and nobody
// else does, whatever the policy; one without an owner is refused, or taken by all.
func TestShardsFollowReference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 7))
	for _, p := range []model.LBPolicy{model.LeastRequest, model.RoundRobin, model.Random, model.PeakEWMA, model.LeastUtilized} {
		for _, otherwise := range []bool{false, true} {
			b := sharded(1+rnd.Uint32N(40), otherwise)
			b.Policy = p
			c := made(b)
			for range 20 {
				list, owners := randomOwners(rnd, b.Shards.Slots)
				c.SetEndpoints(&model.Endpoints{Endpoints: list})
				for slot, want := range owners {
					if len(want) == 0 && otherwise {
						for i := range list {
							if list[i].Health != model.Draining {
								want = append(want, i)
							}
						}
					}
					if got := takers(c, rnd, uint64(slot), b.Shards.Slots); !slices.Equal(got, want) {
						t.Fatalf("%v, slot %d of %d: %v, want %v of %v", p, slot, b.Shards.Slots, got, want, list)
					}
				}
			}
		}
	}
}

// randomOwners makes endpoints, and says, the naive way, who owns each slot.
func randomOwners(rnd *rand.Rand, slots uint32) (list []model.Endpoint, owners [][]int) {
	owners = make([][]int, slots)
	for i := range 1 + rnd.IntN(6) {
		var parts []string
		mine := map[uint32]bool{}
		for range rnd.IntN(4) {
			first := rnd.Uint32N(slots)
			last := first + rnd.Uint32N(slots-first)
			parts = append(parts, fmt.Sprintf("%d-%d", first, last))
			for s := first; s <= last; s++ {
				mine[s] = true
			}
		}
		e := owns(i, strings.Join(parts, "_"))
		switch rnd.IntN(8) {
		case 0:
			e.Health, mine = model.Draining, nil
		case 1:
			e.Labels[0].Value, mine = e.Labels[0].Value+"_x", nil // cannot be read: owns nothing
		}
		for s := range mine {
			owners[s] = append(owners[s], i)
		}
		list = append(list, e)
	}
	return list, owners
}

// takers answers who takes requests of a slot, in order.
func takers(c *cluster.Cluster, rnd *rand.Rand, slot uint64, slots uint32) (out []int) {
	for range 200 {
		e, from, why := c.Choose(&cluster.Choice{Random: rnd.Uint64(), Hash: slot + uint64(slots)*uint64(rnd.Uint32()), Hashed: true})
		if why != failure.None {
			if from != 0 {
				return []int{-1}
			}
			continue
		}
		if i := slices.Index(c.Endpoints(), e); !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

// TestShardsMove: a slot is handed over: one owner, both, the other one; at no time nobody. The endpoints stay what they are.
func TestShardsMove(t *testing.T) {
	c, rnd := made(sharded(4, false), owns(0, "0-3"), owns(1, "2")), rand.New(rand.NewPCG(1, 1))
	first := c.Endpoints()[0]
	for i, step := range []struct {
		a, b string
		want []int
	}{{"0-3", "2", []int{0}}, {"0-3", "0-2", []int{0, 1}}, {"3", "0-2", []int{1}}} {
		c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{owns(0, step.a), owns(1, step.b)}})
		if got := takers(c, rnd, 1, 4); !slices.Equal(got, step.want) || c.Endpoints()[0] != first {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	if !c.Owns(first, &cluster.Choice{Hash: 3, Hashed: true}) || c.Owns(first, &cluster.Choice{Hash: 1, Hashed: true}) || c.Owns(first, &cluster.Choice{}) {
		t.Error("what the first one owns")
	}
}

// TestShardsHealth: who is unwell gets nothing while another owner is well; no other slot's owner takes its place; a request that
// names nothing is nobody's.
func TestShardsHealth(t *testing.T) {
	c, rnd := made(sharded(2, false), owns(0, "0"), owns(1, "0"), owns(2, "1")), rand.New(rand.NewPCG(1, 1))
	c.Endpoints()[0].SetUnhealthy(true)
	if got := takers(c, rnd, 0, 2); !slices.Equal(got, []int{1}) {
		t.Error(got)
	}
	e, from, why := c.Choose(&cluster.Choice{Hash: 1, Hashed: true, Excluded: c.Endpoints()[2:]})
	if e != nil || from != 1 || why != failure.NoEndpoint {
		t.Errorf("the only owner has failed: %v of %d, %v", e, from, why)
	}
	if e, from, why := c.Choose(&cluster.Choice{Random: 5}); e != nil || from != 0 || why != failure.NoEndpoint {
		t.Errorf("nothing is hashed: %v of %d, %v", e, from, why)
	}
	c.Set(&model.Cluster{Name: c.Name(), Balancing: sharded(2, true)})
	if e, from, _ := c.Choose(&cluster.Choice{Random: 5}); e == nil || from != 3 {
		t.Errorf("nothing is hashed, and anybody may: %v of %d", e, from)
	}
}

// TestShardsAllocateNothing: per pick.
func TestShardsAllocateNothing(t *testing.T) {
	c := made(sharded(256, false), owns(0, "0-127"), owns(1, "128-255"), owns(2, "64-191"))
	ch, n := &cluster.Choice{Hashed: true}, uint64(0)
	if a := testing.AllocsPerRun(1000, func() {
		n += 0x9e3779b97f4a7c15
		ch.Hash, ch.Random = n, n
		if _, _, why := c.Choose(ch); why != failure.None {
			t.Fatal(why)
		}
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}
