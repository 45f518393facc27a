package attest

import (
	"context"

	"github.com/tulle-mesh/tulle/identity/svid"
)

// Another obtains a second certificate of the same identity, for a key of its own, proven by the one in force, and keeps it
// renewed until Close of what it answers. It is for the program beside a proxy: what a program holds is not what its proxy
// proves itself with, and neither learns the other's key. It believes what id is told to believe (Believe).
func (id *Identity) Another(ctx context.Context) (*svid.Rotator, error) {
	own := &Identity{Address: id.Address, Server: id.Server, clock: id.clock} // its requests are others than id's
	r, err := svid.NewRotator(ctx, svid.Config{Clock: id.clock, Log: id.log, Fetch: func(ctx context.Context, _ *svid.SVID) (*svid.SVID, error) {
		return own.renew(ctx, id.Current())
	}})
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.others = append(id.others, r)
	if t := id.Current().Trust; t != nil {
		r.Believe(t)
	}
	return r, nil
}

// Believe is svid.Rotator's for all certificates of the identity.
func (id *Identity) Believe(t *svid.Trust) {
	id.Rotator.Believe(t)
	id.mu.Lock()
	defer id.mu.Unlock()
	for _, r := range id.others {
		r.Believe(t)
	}
}
