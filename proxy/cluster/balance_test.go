package cluster_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/balancer"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// at makes an endpoint; n tells it from others.
func at(n int, locality string, labels ...model.Label) model.Endpoint {
	return model.Endpoint{Weight: 1, Locality: locality, Labels: labels, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 80)}
}

func made(b model.Balancing, endpoints ...model.Endpoint) *cluster.Cluster {
	c := cluster.New(&model.Cluster{Name: model.Free("c"), ConnectTimeout: time.Second, Balancing: b})
	c.SetEndpoints(&model.Endpoints{Endpoints: endpoints})
	return c
}

// picks answers how often each endpoint is picked of n times at loop time now.
func picks(t *testing.T, c *cluster.Cluster, n int, now time.Duration, subset ...model.Label) []int {
	t.Helper()
	index := map[*cluster.Endpoint]int{}
	for i, e := range c.Endpoints() {
		index[e] = i
	}
	out, rnd := make([]int, len(index)), rand.New(rand.NewPCG(7, uint64(now)))
	for range n {
		e, _, why := c.Choose(&cluster.Choice{Now: now, Random: rnd.Uint64(), Subset: subset})
		if why != failure.None {
			t.Fatalf("nobody was picked: %v", why)
		}
		out[index[e]]++
	}
	return out
}

// near: got of n is about the share want, to within six standard deviations of a draw and one percent.
func near(t *testing.T, what string, got, n int, want float64) {
	t.Helper()
	if off := 6*math.Sqrt(float64(n)*want*(1-want)) + float64(n)*0.01; math.Abs(float64(got)-want*float64(n)) > off {
		t.Errorf("%s: %d of %d, want a share of %.4f", what, got, n, want)
	}
}

// TestSlowStartCurve: one endpoint comes to nine that are there; at every age its share is what its weight times Envoy's
// curve says.
func TestSlowStartCurve(t *testing.T) {
	slow := model.SlowStart{Window: 60 * time.Second, Aggression: 1.5, Least: 5}
	for _, p := range []model.LBPolicy{model.LeastRequest, model.RoundRobin, model.Random, model.PeakEWMA} {
		var list []model.Endpoint
		for i := range 9 {
			list = append(list, at(i, ""))
		}
		c := made(model.Balancing{Policy: p, SlowStart: slow}, list...)
		picks(t, c, 100, time.Hour) // the first set has no newcomers
		if got := picks(t, c, 9000, time.Hour); slices.Max(got) > 1300 {
			t.Errorf("policy %d: all are equally new: %v", p, got)
		}
		c.SetEndpoints(&model.Endpoints{Endpoints: append(list, at(9, ""))})
		const n = 20_000
		came := 2 * time.Hour
		for _, age := range []time.Duration{0, 3, 10, 20, 30, 45, 59, 60, 100} {
			f := balancer.Warmth(age*time.Second, &slow)
			got := picks(t, c, n, came+age*time.Second)
			near(t, fmt.Sprintf("policy %d, age %d s", p, age), got[9], n, f/(9+f))
		}
		// Ejected and restored it is new again.
		c.Endpoints()[4].SetEjected(true)
		c.Endpoints()[4].SetEjected(false)
		picks(t, c, 1, 3*time.Hour)
		f := balancer.Warmth(10*time.Second, &slow)
		near(t, "restored", picks(t, c, n, 3*time.Hour+10*time.Second)[4], n, f/(9+f))
	}
}

// TestPeakEWMA: the endpoint that is slow, or that fails fast, is left alone; what new ones are taken for is Start.
func TestPeakEWMA(t *testing.T) {
	const ms = time.Millisecond
	c := made(model.Balancing{Policy: model.PeakEWMA}, at(0, ""), at(1, ""), at(2, ""), at(3, ""))
	now := time.Hour
	for i, e := range c.Endpoints()[:3] {
		switch i {
		case 0:
			e.Took(now, 5*ms, false)
		case 1:
			e.Took(now, 500*ms, false)
		case 2:
			e.Took(now, ms, true)
		}
	}
	if l := c.Endpoints()[1].Latency(now); l != 500*ms {
		t.Errorf("the slow one's average is %s", l)
	}
	// 5 ms < 30 ms (new) < 60 ms (failed) < 500 ms: of two different ones the cheaper.
	got := picks(t, c, 60_000, now)
	for i, want := range []float64{1.0 / 2, 0, 1.0 / 6, 1.0 / 3} {
		near(t, fmt.Sprintf("endpoint %d", i), got[i], 60_000, want)
	}
	for range 30 { // 31 · 5 ms is more than 30 ms
		c.Endpoints()[0].Begin()
	}
	if got = picks(t, c, 60_000, now); got[3] < got[0] {
		t.Errorf("requests under way count: %v", got)
	}
}

// TestLeastUtilized: nothing before the blackout is over, then by requests a second over utilization, nothing after a report
// has expired.
func TestLeastUtilized(t *testing.T) {
	c := made(model.Balancing{Policy: model.LeastUtilized}, at(0, ""), at(1, ""), at(2, ""))
	e := c.Endpoints()
	const n = 30_000
	report := func(now time.Duration) {
		e[0].Reported(&balancer.Report{CPU: 0.2, Requests: 100}, now)                   // 500
		e[1].Reported(&balancer.Report{CPU: 0.9, Application: 0.4, Requests: 100}, now) // 250
		e[2].Reported(&balancer.Report{CPU: 0.3, Requests: 100, Errors: 10}, now)       // 0.3 + 0.1: 250
	}
	shares := func(now time.Duration, want ...float64) {
		t.Helper()
		got := picks(t, c, n, now)
		for i, w := range want {
			near(t, fmt.Sprintf("at %s: endpoint %d", now, i), got[i], n, w)
		}
	}
	third := 1.0 / 3
	shares(time.Hour, third, third, third)
	report(time.Hour)
	shares(time.Hour+5*time.Second, third, third, third)
	shares(time.Hour+11*time.Second, 0.5, 0.25, 0.25)
	report(time.Hour + 2*time.Minute)
	shares(time.Hour+4*time.Minute, 0.5, 0.25, 0.25)
	shares(time.Hour+6*time.Minute, third, third, third)
	report(time.Hour + 7*time.Minute)
	shares(time.Hour+7*time.Minute+5*time.Second, third, third, third) // a new blackout
	shares(time.Hour+8*time.Minute, 0.5, 0.25, 0.25)
	e[0].Reported(&balancer.Report{Requests: 3}, time.Hour+8*time.Minute) // says nothing about utilization
	shares(time.Hour+8*time.Minute+2*time.Second, 0.5, 0.25, 0.25)
	e[1].SetUnhealthy(true)
	shares(time.Hour+8*time.Minute+4*time.Second, 2.0/3, 0, 1.0/3)
}

// TestNearestFirst: sub-zone, zone, region, regions to fail over to, all others; each when what is nearer is not there.
func TestNearestFirst(t *testing.T) {
	order := []string{"eu/1/a", "eu/1/b", "eu/2/a", "us/1/a", "asia/1/a", "mars/1/a"}
	b := model.Balancing{Locality: model.LocalityOptions{Mode: model.LocalityPrefer, Failover: []model.Failover{{From: "us", To: "mars"}, {From: "eu", To: "us"}, {From: "*", To: "asia"}}}}
	var list []model.Endpoint
	for i, l := range order {
		list = append(list, at(i, l))
	}
	c := made(b, list...)
	if got := picks(t, c, 6000, 0); slices.Min(got) < 800 {
		t.Errorf("nobody has said where we are: %v", got)
	}
	c.SetLocality("eu/1/a", nil)
	for i := range order {
		got := picks(t, c, 500, 0)
		if got[i] != 500 {
			t.Fatalf("with %s as the nearest that is well: %v", order[i], got)
		}
		c.Endpoints()[i].SetUnhealthy(true)
		if i == len(order)-2 {
			break // with none that is well everybody is picked
		}
	}
}

// TestLikeFirst: who shares more labels comes first, nearness decides among equals.
func TestLikeFirst(t *testing.T) {
	label := func(rack, tier string) []model.Label {
		return []model.Label{{Name: "rack", Value: rack}, {Name: "tier", Value: tier}}
	}
	b := model.Balancing{Locality: model.LocalityOptions{Mode: model.LocalityPrefer, Labels: []string{"tier", "rack"}}}
	c := made(b, at(0, "us", label("r1", "gold")...), at(1, "eu", label("r2", "gold")...), at(2, "us", label("r2", "gold")...), at(3, "eu", label("r1", "lead")...), at(4, "us"))
	c.SetLocality("eu", label("r1", "gold"))
	for i := range 4 {
		if got := picks(t, c, 200, 0); got[i] != 200 {
			t.Fatalf("%d is next: %v", i, got)
		}
		c.Endpoints()[i].SetUnhealthy(true)
	}
}

// TestHealthSpillsOver: with 140 percent of overprovisioning a locality of which half is unwell takes 70 percent.
func TestHealthSpillsOver(t *testing.T) {
	var list []model.Endpoint
	for i := range 10 {
		list = append(list, at(i, "eu/1/a"))
	}
	for i := range 10 {
		list = append(list, at(10+i, "eu/2/a"))
	}
	c := made(model.Balancing{Locality: model.LocalityOptions{Mode: model.LocalityPrefer}}, list...)
	c.SetLocality("eu/1/a", nil)
	for unwell, want := range []float64{1, 1, 1, 0.98, 0.84, 0.7, 0.56, 0.42, 0.28, 0.14} {
		got := picks(t, c, 10_000, 0)
		own := 0
		for _, n := range got[:10] {
			own += n
		}
		near(t, fmt.Sprintf("%d of 10 unwell", unwell), own, 10_000, want)
		c.Endpoints()[unwell].SetUnhealthy(true)
	}
}

// TestLoadSpillsOver: the curve. A locality takes what is offered up to SpillAt requests for each of its endpoints; what is
// more goes to the next one, and when both are full they fill alike. Nothing has failed.
func TestLoadSpillsOver(t *testing.T) {
	const own, other, spill = 4, 8, 10
	var list []model.Endpoint
	for i := range own + other {
		l := "eu/1/a"
		if i >= own {
			l = "eu/2/a"
		}
		list = append(list, at(i, l))
	}
	c := made(model.Balancing{Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: spill}}, list...)
	c.SetLocality("eu/1/a", nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	busy := [2]int{}
	for offered := 1; offered <= 240; offered++ { // so many requests under way
		e, _, _ := c.Choose(&cluster.Choice{Random: rnd.Uint64()})
		e.Begin()
		if e.Model().Locality == "eu/1/a" {
			busy[0]++
		} else {
			busy[1]++
		}
		want := min(offered, own*spill)
		if offered > (own+other)*spill {
			want = own * offered / (own + other)
		}
		if d := busy[0] - want; d < -2 || d > 2 {
			t.Fatalf("%d requests under way: %v in the two localities, want %d in the own one", offered, busy, want)
		}
	}
	for _, e := range c.Endpoints() { // they end
		for e.InFlight() > 0 {
			e.End()
		}
	}
	if e, _, _ := c.Choose(&cluster.Choice{Random: 1}); e.Model().Locality != "eu/1/a" {
		t.Error("it does not come back")
	}
}

// TestWeightedLocalities: by weight, less where endpoints are unwell, by region where only that is said; those of no weight
// get nothing.
func TestWeightedLocalities(t *testing.T) {
	list := []model.Endpoint{at(0, "eu/1/a"), at(1, "eu/1/b"), at(2, "eu/1/b"), at(3, "us/1/a"), at(4, "us/2/c"), at(5, "asia/1/a")}
	for _, p := range []model.LBPolicy{model.LeastRequest, model.RoundRobin, model.Random, model.PeakEWMA, model.LeastUtilized, model.RingHash, model.Maglev} {
		c := cluster.New(&model.Cluster{Name: model.Free("c"), Balancing: model.Balancing{Policy: p, Locality: model.LocalityOptions{Mode: model.LocalityWeighted}, MinRing: 100_000}})
		c.SetEndpoints(&model.Endpoints{Endpoints: list, Localities: []model.LocalityWeight{{Locality: "eu/1/a", Weight: 1}, {Locality: "eu/1/b", Weight: 4}, {Locality: "us", Weight: 5}, {Locality: "asia/1/a", Priority: 3, Weight: 9}}})
		const n = 50_000
		count := func() (out [6]int) {
			rnd := rand.New(rand.NewPCG(uint64(p), 2))
			for range n {
				h := rnd.Uint64()
				e, _, _ := c.Choose(&cluster.Choice{Random: rnd.Uint64(), Hash: h, Hashed: true})
				out[slices.Index(c.Endpoints(), e)]++
			}
			return out
		}
		got := count()
		for i, want := range []float64{0.1, 0.2, 0.2, 0.25, 0.25, 0} {
			near(t, fmt.Sprintf("policy %d, endpoint %d", p, i), got[i], n, want)
		}
		if p == model.RingHash || p == model.Maglev {
			continue // who is passed by gives his part to whoever is next
		}
		c.Endpoints()[1].SetUnhealthy(true) // half of eu/1/b: 70 percent of 4
		got = count()
		for i, want := range []float64{1 / 8.8, 0, 2.8 / 8.8, 2.5 / 8.8, 2.5 / 8.8, 0} {
			near(t, fmt.Sprintf("policy %d, one unwell, endpoint %d", p, i), got[i], n, want)
		}
	}
}

// TestSubset: only endpoints with all the labels, whatever happens to their health; unknown ones are nobody.
func TestSubset(t *testing.T) {
	v1, v2, gpu := model.Label{Name: "version", Value: "1"}, model.Label{Name: "version", Value: "2"}, model.Label{Name: "hw", Value: "gpu"}
	list := []model.Endpoint{at(0, "", v1), at(1, "", v2), at(2, "", v2, gpu), at(3, "", gpu), at(4, "")}
	for _, p := range []model.LBPolicy{model.LeastRequest, model.RoundRobin, model.Random, model.RingHash, model.Maglev, model.PeakEWMA, model.LeastUtilized} {
		c := made(model.Balancing{Policy: p}, list...)
		only := func(out int, subset []model.Label, want ...int) { // out of how many
			t.Helper()
			rnd := rand.New(rand.NewPCG(1, 2))
			seen := map[int]bool{}
			for range 2000 {
				e, from, why := c.Choose(&cluster.Choice{Random: rnd.Uint64(), Hash: rnd.Uint64(), Hashed: true, Subset: subset})
				if why != failure.None {
					if len(want) > 0 || from != out {
						t.Fatalf("policy %d, %v: %v of %d", p, subset, why, from)
					}
					return
				}
				i := slices.Index(c.Endpoints(), e)
				if seen[i] = true; !slices.Contains(want, i) || from != out {
					t.Fatalf("policy %d, %v: endpoint %d of %d", p, subset, i, from)
				}
			}
			if len(seen) != len(want) {
				t.Errorf("policy %d, %v: %v, want all of %v", p, subset, seen, want)
			}
		}
		only(2, []model.Label{v2}, 1, 2)
		only(1, []model.Label{gpu, v2}, 2)
		only(1, []model.Label{v1}, 0)
		only(0, []model.Label{v1, gpu})
		only(0, []model.Label{{Name: "version", Value: "3"}})
		only(5, nil, 0, 1, 2, 3, 4)
		c.Endpoints()[1].SetUnhealthy(true)
		only(2, []model.Label{v2}, 2)
		c.Endpoints()[2].SetUnhealthy(true) // panic, within the subset
		only(2, []model.Label{v2}, 1, 2)
		c.SetEndpoints(&model.Endpoints{Endpoints: append(slices.Clone(list), at(5, "", v2))})
		c.Endpoints()[1].SetUnhealthy(false)
		c.Endpoints()[2].SetUnhealthy(false)
		only(3, []model.Label{v2}, 1, 2, 5)
		c.Set(&model.Cluster{Name: model.Free("c"), Balancing: model.Balancing{Policy: model.Random}})
		only(3, []model.Label{v2}, 1, 2, 5)
	}
}

// TestSubsetFallback: Envoy's lb_subset_config.
func TestSubsetFallback(t *testing.T) {
	v1, v2, gpu := model.Label{Name: "version", Value: "1"}, model.Label{Name: "version", Value: "2"}, model.Label{Name: "hw", Value: "gpu"}
	list := []model.Endpoint{at(0, "", v1), at(1, "", v2), at(2, "", v2, gpu)}
	for _, c := range []struct {
		name   string
		o      model.Subsets
		subset []model.Label
		want   int // endpoints out of which is picked
	}{
		{"selected", model.Subsets{Selectors: [][]string{{"version"}}}, []model.Label{v2}, 2},
		{"two keys", model.Subsets{Selectors: [][]string{{"version"}, {"hw", "version"}}}, []model.Label{gpu, v2}, 1},
		{"no such selector", model.Subsets{Selectors: [][]string{{"version"}}}, []model.Label{gpu}, 0},
		{"no such selector, any", model.Subsets{Selectors: [][]string{{"version"}}, Fallback: model.SubsetAny}, []model.Label{gpu}, 3},
		{"empty, default", model.Subsets{Selectors: [][]string{{"version"}}, Fallback: model.SubsetDefault, Default: []model.Label{v1}}, []model.Label{{Name: "version", Value: "9"}}, 1},
		{"empty, default is empty", model.Subsets{Selectors: [][]string{{"version"}}, Fallback: model.SubsetDefault, Default: []model.Label{{Name: "a", Value: "b"}}}, []model.Label{gpu}, 0},
		{"a cluster without subsets", model.Subsets{Fallback: model.SubsetAny}, []model.Label{v1}, 3},
	} {
		cl := made(model.Balancing{Subsets: &c.o}, list...)
		for range 3 {
			if _, from, _ := cl.Choose(&cluster.Choice{Random: rand.Uint64(), Subset: c.subset}); from != c.want {
				t.Errorf("%s: out of %d, want %d", c.name, from, c.want)
			}
		}
	}
}

// TestSubsetsAreBounded and made while others pick.
func TestSubsetsAreBounded(t *testing.T) {
	c := made(model.Balancing{}, at(0, "", model.Label{Name: "k", Value: "1"}))
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 3 * cluster.MaxSubsets {
				want := []model.Label{{Name: "k", Value: fmt.Sprint(i % 500)}}
				if e, _, _ := c.Choose(&cluster.Choice{Random: uint64(i), Subset: want}); (e != nil) != (i%500 == 1) {
					t.Errorf("%v: %v", want, e)
				}
				if g == 0 && i%100 == 0 {
					c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{at(0, "", model.Label{Name: "k", Value: "1"})}})
				}
			}
		})
	}
	all.Wait()
}

// TestProbe: an endpoint that is half open gets one request, nobody else's failed one, and no other until it is decided.
func TestProbe(t *testing.T) {
	c := made(model.Balancing{}, at(0, ""), at(1, ""), at(2, ""))
	e := c.Endpoints()[1]
	count := func() (probes, others int) {
		for range 300 {
			ch := cluster.Choice{Random: rand.Uint64()}
			got, _, _ := c.Choose(&ch)
			switch {
			case ch.Probe && got == e:
				probes++
			case ch.Probe || got == e:
				others++
			}
		}
		return probes, others
	}
	e.SetEjected(true)
	if p, o := count(); p+o > 0 {
		t.Fatalf("ejected: %d, %d", p, o)
	}
	e.HalfOpen()
	// What must not be sent twice decides only where nothing else has come for a while, and from then on.
	for _, now := range []time.Duration{time.Minute, time.Minute + 4*time.Second} {
		once := cluster.Choice{Once: true, Now: now}
		if got, _, _ := c.Choose(&once); got == e || once.Probe || !c.Probing() {
			t.Errorf("%+v was given the probe", once)
		}
	}
	once := cluster.Choice{Once: true, Now: time.Minute + 5*time.Second}
	if got, _, _ := c.Choose(&once); got != e || !once.Probe {
		t.Error("a service that gets nothing but POST never gets its endpoint back")
	}
	e.Unprobed()
	for _, ch := range []cluster.Choice{{NoProbe: true}, {Excluded: []*cluster.Endpoint{c.Endpoints()[0]}}} {
		if got, _, _ := c.Choose(&ch); got == e || ch.Probe {
			t.Errorf("%+v was given the probe", ch)
		}
	}
	if p, o := count(); p != 1 || o != 0 {
		t.Fatalf("half open: %d probes, %d others", p, o)
	}
	if _, ok := e.TakeProbe(); ok {
		t.Error("nothing is known yet")
	}
	e.Unprobed()
	if p, o := count(); p != 1 || o != 0 {
		t.Fatalf("the first one has told nothing: %d, %d", p, o)
	}
	e.Probed(false)
	if well, ok := e.TakeProbe(); well || !ok {
		t.Error("the failure is not known")
	}
	if p, o := count(); p+o > 0 {
		t.Fatalf("nobody has decided yet: %d, %d", p, o)
	}
	e.SetEjected(true)
	if _, ok := e.TakeProbe(); ok {
		t.Error("it was taken")
	}
	e.HalfOpen()
	count()
	e.Probed(true)
	if well, ok := e.TakeProbe(); !well || !ok {
		t.Error("the good answer is not known")
	}
	e.SetEjected(false)
	if p, o := count(); p != 0 || o < 50 {
		t.Errorf("restored: %d probes, %d others", p, o)
	}
	// One that goes while it waits leaves nothing behind.
	e.SetEjected(true)
	e.HalfOpen()
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{at(0, ""), at(2, "")}})
	if p, o := count(); p+o > 0 {
		t.Errorf("gone: %d, %d", p, o)
	}
}

// TestBalancingAllocatesNothing: none of it, once it is warm.
func TestBalancingAllocatesNothing(t *testing.T) {
	v := model.Label{Name: "version", Value: "1"}
	var list []model.Endpoint
	for i := range 40 {
		list = append(list, at(i, []string{"eu/1/a", "eu/2/a"}[i%2], v))
	}
	for name, b := range map[string]model.Balancing{
		"ewma":        {Policy: model.PeakEWMA},
		"utilization": {Policy: model.LeastUtilized},
		"slow start":  {Policy: model.LeastRequest, SlowStart: model.SlowStart{Window: time.Hour}},
		"slow ewma":   {Policy: model.PeakEWMA, SlowStart: model.SlowStart{Window: time.Hour}},
		"slow turns":  {Policy: model.RoundRobin, SlowStart: model.SlowStart{Window: time.Hour}},
		"locality":    {Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: 3}},
		"weighted":    {Locality: model.LocalityOptions{Mode: model.LocalityWeighted}},
		"selected":    {Subsets: &model.Subsets{Selectors: [][]string{{"version"}}}},
	} {
		c := cluster.New(&model.Cluster{Name: model.Free("c"), Balancing: b, Outlier: &model.Outlier{LatencyFactor: 3}})
		c.SetLocality("eu/1/a", nil)
		c.SetEndpoints(&model.Endpoints{Endpoints: list[:39], Localities: []model.LocalityWeight{{Locality: "eu/1/a", Weight: 1}, {Locality: "eu/2/a", Weight: 1}}})
		c.Pick(time.Hour, 1, nil)
		c.SetEndpoints(&model.Endpoints{Endpoints: list, Localities: []model.LocalityWeight{{Locality: "eu/1/a", Weight: 1}, {Locality: "eu/2/a", Weight: 1}}})
		now, n := 2*time.Hour, uint64(0)
		report := balancer.Report{CPU: 0.4, Requests: 10}
		subset := []model.Label{v}
		c.Choose(&cluster.Choice{Now: now, Subset: subset})
		if a := testing.AllocsPerRun(2000, func() {
			n += 0x9e3779b97f4a7c15
			now += time.Millisecond
			choice := cluster.Choice{Now: now, Random: n, Subset: subset}
			e, _, _ := c.Choose(&choice)
			e.Took(now, time.Millisecond, n>>63 == 0)
			e.Reported(&report, now)
		}); a > 0 {
			t.Errorf("%s: %v allocations", name, a)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	v := model.Label{Name: "version", Value: "1"}
	for _, c := range []struct {
		name   string
		b      model.Balancing
		subset []model.Label
	}{
		{"least request", model.Balancing{}, nil},
		{"ewma", model.Balancing{Policy: model.PeakEWMA}, nil},
		{"utilization", model.Balancing{Policy: model.LeastUtilized}, nil},
		{"slow start", model.Balancing{SlowStart: model.SlowStart{Window: time.Hour}}, nil},
		{"spill", model.Balancing{Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: 10}}, nil},
		{"subset", model.Balancing{}, []model.Label{v}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var list []model.Endpoint
			for i := range 40 {
				list = append(list, at(i, []string{"eu/1/a", "eu/2/a"}[i%2], v))
			}
			cl := made(c.b, list[:30]...)
			cl.SetLocality("eu/1/a", nil)
			cl.Pick(time.Hour, 1, nil)
			cl.SetEndpoints(&model.Endpoints{Endpoints: list})
			n, now := uint64(0), time.Hour
			for b.Loop() {
				n += 0x9e3779b97f4a7c15
				now += 10 * time.Microsecond
				ch := cluster.Choice{Now: now, Random: n, Subset: c.subset}
				e, _, _ := cl.Choose(&ch)
				e.Took(now, time.Millisecond, false)
			}
		})
	}
}
