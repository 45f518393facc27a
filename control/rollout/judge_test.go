package rollout

import (
	"math"
	"math/big"
	"testing"
)

// TestAtLeast: the chances are those that exact fractions give.
func TestAtLeast(t *testing.T) {
	exact := func(k, n int64, p *big.Rat) float64 {
		total, q := new(big.Rat), new(big.Rat).Sub(big.NewRat(1, 1), p)
		for i := k; i <= n; i++ {
			term := new(big.Rat).SetInt(new(big.Int).Binomial(n, i))
			for range i {
				term.Mul(term, p)
			}
			for range n - i {
				term.Mul(term, q)
			}
			total.Add(total, term)
		}
		f, _ := total.Float64()
		return f
	}
	for _, n := range []int64{1, 2, 7, 40} {
		for _, share := range []*big.Rat{big.NewRat(1, 100), big.NewRat(1, 5), big.NewRat(9, 10)} {
			p, _ := share.Float64()
			for k := int64(0); k <= n; k++ {
				got, want := atLeast(uint64(k), uint64(n), p), exact(k, n, share)
				if float64(k) > float64(n)*p && math.Abs(got-want) > 1e-9*want {
					t.Errorf("%d of %d at %g: %g, not %g", k, n, p, got, want)
				}
			}
		}
	}
	if got := atLeast(11000, 1_000_000, 0.01); got > 1e-20 || got <= 0 {
		t.Errorf("of a million: %g", got)
	}
}

// TestShareAtMost: 3 failures of 1000 leave open that it is 1 %, and hundred times as many do not.
func TestShareAtMost(t *testing.T) {
	few, many := shareAtMost(3, 1000), shareAtMost(300, 100_000)
	if few < 0.009 || few > 0.015 || many < 0.0033 || many > 0.0037 || shareAtMost(0, 0) != 1 {
		t.Errorf("%g, %g, %g", few, many, shareAtMost(0, 0))
	}
}
