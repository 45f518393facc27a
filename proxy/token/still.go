package token

import (
	"errors"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model/token"
)

// What lasts longer than its token, or than the policy that believed it.

// Ends answers when the token is not believed any more, Unix seconds: its end and what is forgiven to clocks. 0: never.
func (v *Verified) Ends() int64 { return v.issuer.ends(v.Token) }

func (i *issuer) ends(t *token.Token) int64 {
	at, ends := t.Ends()
	if !ends {
		return 0
	}
	return at + int64(i.model.Skew/time.Second)
}

// Still says about a token that was believed, by this guard or by one before it, whether it would be now, and until when, as Ends
// does. Errors are those of model/token. As long as its issuer's keys have not come, those that have verified it count; where in the
// request it was is not asked again, nor whether its time has come: a clock was set back, then.
func (g *Guard) Still(v *Verified, now time.Time) (until int64, err error) {
	at := slices.IndexFunc(g.issuers, func(i *issuer) bool { return i.model.Issuer == v.Issuer })
	if at < 0 {
		return 0, token.ErrIssuer
	}
	i := g.issuers[at]
	if err := v.Check(i.model.Issuer, i.model.Audiences, i.model.Skew, now); err != nil && !errors.Is(err, token.ErrNotYet) {
		return 0, err
	}
	if _, ends := v.Token.Ends(); !ends && !i.model.Endless {
		return 0, token.ErrEndless
	}
	if !slices.Contains(i.model.Algorithms, v.Algorithm) {
		return 0, token.ErrAlgorithm
	}
	if keys := i.source.keys.Load(); keys != nil && keys != v.keys && !keys.Still(v.Token, v.by) {
		return 0, token.ErrNoKey
	}
	return i.ends(v.Token), nil
}
