package rollout

import (
	"fmt"
	"math"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/telemetry"
)

// condemned says what is worse than is allowed, and surely so; "" for nothing.
func condemned(r *v1alpha1.Rollout, v *Seen) string {
	allowed := allowedFailures(r, shareAtMost(v.Stable.Failures, v.Stable.Requests), v.Stable.Requests > 0)
	if atLeast(v.Canary.Failures, v.Canary.Requests, allowed) < Doubt {
		return failures(v)
	}
	if bound := slowest(r, v); bound > 0 {
		if slow, n := slower(&v.Canary.Latency, bound), v.Canary.Latency.Total(); atLeast(slow, n, slowShare) < Doubt {
			return slowness(slow, n, bound)
		}
	}
	return ""
}

// beyond says what is out of bounds, be it by chance; "" for nothing.
func beyond(r *v1alpha1.Rollout, v *Seen) string {
	const rounding = 1e-9
	if share(v.Canary.Failures, v.Canary.Requests) > allowedFailures(r, share(v.Stable.Failures, v.Stable.Requests), v.Stable.Requests > 0)+rounding {
		return failures(v)
	}
	if bound := slowest(r, v); bound > 0 {
		if slow, n := slower(&v.Canary.Latency, bound), v.Canary.Latency.Total(); share(slow, n) > slowShare+rounding {
			return slowness(slow, n, bound)
		}
	}
	return ""
}

func failures(v *Seen) string {
	return fmt.Sprintf("%d of its %d requests failed, and %d of %d of the stable backend's", v.Canary.Failures, v.Canary.Requests, v.Stable.Failures, v.Stable.Requests)
}

func slowness(slow, n uint64, bound time.Duration) string {
	return fmt.Sprintf("%d of its %d requests took longer than %s, which 99 of 100 must not", slow, n, bound.Round(time.Microsecond))
}

// allowedFailures answers which share of the canary's requests may fail, where that of the stable backend is stable.
func allowedFailures(r *v1alpha1.Rollout, stable float64, compared bool) float64 {
	allowed := 1 - *r.Success.Least/100
	if compared {
		allowed = min(allowed, stable+*r.Success.Worse/100)
	}
	return allowed
}

// slowest answers the time that 99 of 100 requests must stay below; 0: there is no such bound. Of fewer requests than a step
// needs the stable backend's is not known.
func slowest(r *v1alpha1.Rollout, v *Seen) time.Duration {
	l := r.Latency
	if l == nil {
		return 0
	}
	bound := l.Most.Value()
	if l.Factor != nil && v.Stable.Latency.Total() >= uint64(*r.Requests) {
		if f := time.Duration(*l.Factor * float64(v.Stable.Latency.Quantile(quantile))); bound == 0 || f < bound {
			bound = f
		}
	}
	return bound
}

// slower answers how many observations are surely above a bound.
func slower(h *telemetry.Histogram, bound time.Duration) (n uint64) {
	last := telemetry.Bucket(bound)
	for i, b := range h.Index {
		if int(b) > last {
			n += h.Count[i]
		}
	}
	return n
}

func share(k, n uint64) float64 {
	if n == 0 {
		return 0
	}
	return float64(k) / float64(n)
}

// atLeast answers the chance of k or more of n where each has the chance p.
func atLeast(k, n uint64, p float64) float64 {
	switch {
	case k == 0 || p >= 1:
		return 1
	case p <= 0:
		return 0
	case float64(k) <= float64(n)*p:
		return 1 // about a half or more: nothing that is asked here depends on how much
	}
	// Above the mean each term is smaller than the one before.
	return sum(k, n, p)
}

// sum adds the chances of k, k+1, … of n, for k above the mean.
func sum(k, n uint64, p float64) float64 {
	lg := func(x uint64) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	term := math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	total := 0.0
	for i := k; ; i++ {
		total += term
		if i == n || term < total*1e-12 {
			return min(total, 1)
		}
		term *= float64(n-i) / float64(i+1) * p / (1 - p)
	}
}

// shareAtMost answers the highest share that is not refuted by k of n (the bound of Clopper and Pearson, one-sided, at Doubt).
func shareAtMost(k, n uint64) float64 {
	if k >= n {
		return 1
	}
	low, high := share(k, n), 1.0
	for range 40 {
		mid := (low + high) / 2
		// k or fewer are n-k or more of those that did not fail.
		if atLeast(n-k, n, 1-mid) < Doubt {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}
