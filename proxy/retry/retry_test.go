package retry_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// TestConditions: each condition by itself, on each end of an attempt.
func TestConditions(t *testing.T) {
	reasons := []failure.Reason{failure.ConnectFailed, failure.RefusedStream, failure.UpstreamReset, failure.AttemptTimeout, failure.UpstreamProtocol, failure.Overflow}
	statuses := []int{200, 404, 409, 429, 500, 502, 503, 504, 599}
	for _, c := range []struct {
		p        model.Retry
		reasons  []failure.Reason
		statuses []int
	}{
		{model.Retry{}, reasons[:2], nil},
		{model.Retry{On: model.RetryUntouched}, reasons[:2], nil},
		{model.Retry{On: model.RetryReset}, reasons[:3], nil},
		{model.Retry{On: model.RetryTimeout}, []failure.Reason{failure.ConnectFailed, failure.RefusedStream, failure.AttemptTimeout}, nil},
		{model.Retry{On: model.RetryGateway}, reasons[:2], []int{502, 503, 504}},
		{model.Retry{On: model.Retry5xx}, reasons[:3], []int{500, 502, 503, 504, 599}},
		{model.Retry{On: model.Retry4xx}, reasons[:2], []int{409}},
		{model.Retry{On: model.RetryStatuses, Statuses: []uint16{429, 404}}, reasons[:2], []int{404, 429}},
		{model.Retry{Statuses: []uint16{429, 404}}, reasons[:2], nil},
	} {
		for _, r := range reasons {
			if got := retry.Failed(&c.p, r); got != has(c.reasons, r) {
				t.Errorf("%+v after %s: %t", c.p, r, got)
			}
		}
		for _, s := range statuses {
			if got := retry.Answered(&c.p, s, -1); got != has(c.statuses, s) {
				t.Errorf("%+v after %d: %t", c.p, s, got)
			}
		}
	}
	g := model.Retry{On: model.RetryGRPC, GRPC: 1<<14 | 1}
	for status, want := range map[int]bool{-1: false, 0: false, 13: false, 14: true, 40: false} {
		if retry.Answered(&g, 200, status) != want {
			t.Errorf("gRPC status %d: %t", status, !want)
		}
	}
}

func has[T comparable](all []T, one T) bool {
	for _, a := range all {
		if a == one {
			return true
		}
	}
	return false
}

func TestRepeatable(t *testing.T) {
	for _, m := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"} {
		if !retry.Repeatable(nil, m, false) {
			t.Error(m)
		}
	}
	for _, m := range []string{"POST", "PATCH", "CONNECT", "get", "LOCK"} {
		if retry.Repeatable(&model.Retry{On: ^model.RetryOn(0)}, m, false) {
			t.Error(m)
		}
		if !retry.Repeatable(nil, m, true) || !retry.Repeatable(&model.Retry{AnyMethod: true}, m, false) {
			t.Error(m, "though somebody has said that it does no harm")
		}
	}
}

// TestWait holds waits to their definition: uniform up to Base·(2^n−1), at most Max.
func TestWait(t *testing.T) {
	const ms = time.Millisecond
	p := &model.Retry{Base: 25 * ms, Max: 250 * ms}
	for n, reach := range map[int]time.Duration{0: 25 * ms, 1: 25 * ms, 2: 75 * ms, 3: 175 * ms, 4: 250 * ms, 5: 250 * ms, 31: 250 * ms, 1000: 250 * ms} {
		if d := retry.Wait(p, n, 0); d != 0 {
			t.Errorf("%d: at least %s", n, d)
		}
		if d := retry.Wait(p, n, ^uint64(0)); d > reach || d < reach-ms {
			t.Errorf("%d: at most %s", n, d)
		}
		if d := retry.Wait(p, n, 1<<63); d < reach/2-ms || d > reach/2 {
			t.Errorf("%d: in the middle %s", n, d)
		}
	}
	if d := retry.Wait(&model.Retry{}, 1, ^uint64(0)); d > 25*ms || d < 24*ms {
		t.Errorf("while nothing is learned: %s", d)
	}
	if d := retry.Wait(&model.Retry{Least: 10 * ms, Max: 100 * ms}, 1, 0); d != 10*ms {
		t.Errorf("at least: %s", d)
	}
	if d := retry.Wait(&model.Retry{Base: time.Hour * 2e6, Max: time.Hour}, 20, ^uint64(0)); d > time.Hour {
		t.Errorf("an overflow: %s", d)
	}
	if d := retry.Spread(time.Second, ^uint64(0)); d < 1400*ms || d > 1500*ms || retry.Spread(time.Second, 0) != time.Second {
		t.Errorf("spread: %s", d)
	}
}

func TestAfter(t *testing.T) {
	wall := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		text string
		unix bool
		want time.Duration
		ok   bool
	}{
		{"0", false, 0, true}, {"7", false, 7 * time.Second, true}, {"120", false, 2 * time.Minute, true},
		{"Sat, 21 Nov 2026 10:00:30 GMT", false, 30 * time.Second, true}, {"Sat, 21 Nov 2026 09:00:30 GMT", false, 0, true},
		{"1795255210", true, 10 * time.Second, true}, {"1795255190", true, 0, true}, {"soon", true, 0, false},
		{"", false, 0, false}, {"-1", false, 0, false}, {"1.5", false, 0, false}, {"7 ", false, 0, false}, {"Sat", false, 0, false},
	} {
		if d, ok := retry.After([]byte(c.text), c.unix, wall); d != c.want || ok != c.ok {
			t.Errorf("%q: %s, %t", c.text, d, ok)
		}
	}
	if d, ok := retry.After([]byte("99999999999999999999999"), false, wall); !ok || d < 100*365*24*time.Hour {
		t.Errorf("a long time: %s, %t", d, ok)
	}
}

func FuzzAfter(f *testing.F) {
	f.Add([]byte("7"), false)
	f.Add([]byte("Sat, 21 Nov 2026 10:00:30 GMT"), false)
	f.Add([]byte("18446744073709551616"), true)
	f.Fuzz(func(t *testing.T, v []byte, unix bool) {
		if d, ok := retry.After(v, unix, time.Unix(1795255200, 0)); d < 0 || !ok && d != 0 {
			t.Errorf("%s, %t", d, ok)
		}
	})
}

// TestBudget: who has nobody behind him may use all of the budget, and who has, what they have left.
func TestBudget(t *testing.T) {
	b := model.Budget{Percent: 20, Least: 3}
	for _, c := range []struct {
		name string
		s    retry.Sums
		may  bool
		amp  int64
	}{
		{"nothing yet", retry.Sums{}, true, 1000},
		{"the first ones", retry.Sums{Requests: 1, Arrived: 1, Attempts: 3}, true, 1000},
		{"no more of the first ones", retry.Sums{Requests: 1, Arrived: 1, Attempts: 4}, false, 1000},
		{"one left", retry.Sums{Requests: 100, Arrived: 100, Earning: 100, Attempts: 119}, true, 1190},
		{"used up", retry.Sums{Requests: 100, Arrived: 100, Earning: 100, Attempts: 120}, false, 1200},
		{"half used up below", retry.Sums{Requests: 100, Arrived: 100, Earning: 100, Attempts: 105, Extra: 10_000}, true, 1150},
		{"a little is kept back for what is not known yet", retry.Sums{Requests: 3000, Arrived: 3000, Earning: 3000, Attempts: 3582}, false, 1194},
		{"used up below", retry.Sums{Requests: 100, Arrived: 100, Earning: 100, Attempts: 100, Extra: 20_000}, false, 1200},
		{"what those above have added is theirs", retry.Sums{Requests: 100, Earning: 100, Arrived: 110, Attempts: 121}, false, 1100},
		{"no more for what is too old", retry.Sums{Requests: 100, Arrived: 100, Earning: 90, Attempts: 118}, false, 1180},
		{"a little left, but less than one comes to", retry.Sums{Requests: 100, Arrived: 100, Earning: 100, Attempts: 100, Extra: 19_000}, false, 1190},
	} {
		if may := retry.Allows(b, c.s); may != c.may {
			t.Errorf("%s: %t", c.name, may)
		}
		if amp := retry.Amplification(b, c.s); amp != c.amp {
			t.Errorf("%s: comes to %d", c.name, amp)
		}
	}
	if b := retry.Filled(model.Budget{}); b.Percent != 20 || b.Least != 10 {
		t.Errorf("the default is %+v", b)
	}
	if b := retry.Filled(model.Budget{Least: 1}); b.Percent != 0 {
		t.Errorf("only a few: %+v", b)
	}
}
