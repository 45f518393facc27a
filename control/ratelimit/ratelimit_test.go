package ratelimit_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ratelimit"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
)

var cart = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}

func question(limit, rate, key string) *model.RateQuestion {
	return &model.RateQuestion{Domain: "tulle", Descriptors: []model.Descriptor{{
		{Key: "header", Value: key}, {Key: model.LimitKey, Value: limit}, {Key: model.RateKeyOfLimit, Value: rate}}}}
}

func TestCounts(t *testing.T) {
	now := time.Minute
	c := ratelimit.New(func() time.Duration { return now })
	ask := func(peer spiffe.ID, q *model.RateQuestion) model.DescriptorAnswer {
		return c.Decide(peer, q, 1).Descriptors[0]
	}
	for i := range 3 {
		if a := ask(cart, question("l", "3/1h0m0s/0", "a")); a.Over || a.Left != uint32(2-i) || a.Requests != 3 || a.Window != time.Hour {
			t.Errorf("request %d: %+v", i, a)
		}
	}
	if a := ask(cart, question("l", "3/1h0m0s/0", "a")); !a.Over || a.Reset != 20*time.Minute {
		t.Errorf("over: %+v", a)
	}
	other := cart
	other.ServiceAccount = "till"
	for name, a := range map[string]model.DescriptorAnswer{"key": ask(cart, question("l", "3/1h0m0s/0", "b")), "limit": ask(cart, question("m", "3/1h0m0s/0", "a")), "service": ask(other, question("l", "3/1h0m0s/0", "a"))} {
		if a.Over {
			t.Errorf("another %s is counted with it", name)
		}
	}
	now += 7 * time.Minute
	if a := ask(cart, question("l", "9/1h0m0s/9", "a")); a.Over { // more is allowed now; what was taken counts
		t.Errorf("after a change: %+v", a)
	}
	now += time.Hour
	if a := ask(cart, question("l", "3/1h0m0s/0", "a")); a.Over || a.Left != 2 {
		t.Errorf("an hour later: %+v", a)
	}
	if a := c.Decide(cart, &model.RateQuestion{Descriptors: []model.Descriptor{{{Key: "x", Value: "y"}}, {{Key: model.RateKeyOfLimit, Value: "nonsense"}}}}, 1); a.Descriptors[0].Over || a.Descriptors[1].Over {
		t.Errorf("what names no limit: %+v", a)
	}
	if c.Decide(spiffe.ID{}, question("l", "1/1s/1", "a"), 1) != nil {
		t.Error("who has not proven who he is may ask")
	}
}

func TestBounded(t *testing.T) {
	c := ratelimit.New(func() time.Duration { return time.Minute })
	over := 0
	for i := range 150_000 {
		c.Decide(cart, question("l", "5/1h0m0s/5", fmt.Sprint(i)), 1)
		if i%1000 == 0 && c.Decide(cart, question("l", "5/1h0m0s/5", "busy"), 1).Descriptors[0].Over {
			over++
		}
	}
	if c.Len() > 100_000 || over != 145 {
		t.Errorf("%d buckets; over %d times of 150, 145 are right", c.Len(), over)
	}
}

func TestExactAtOnce(t *testing.T) {
	c := ratelimit.New(func() time.Duration { return time.Minute })
	var wg sync.WaitGroup
	passed := make(chan struct{}, 2000)
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if !c.Decide(cart, question("l", "100/1h0m0s/100", "a"), 1).Descriptors[0].Over {
					passed <- struct{}{}
				}
			}
		})
	}
	wg.Wait()
	if len(passed) != 100 {
		t.Errorf("%d passed, 100 are allowed", len(passed))
	}
}
