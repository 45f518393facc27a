package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// DefaultPerIdentity is how many connections one identity may have open: a proxy has one, a second one for a moment while it renews its
// certificate or is replaced, and one that broke is noticed within 13 s. So a service of 300 workloads here has room to reconnect all
// at once.
const DefaultPerIdentity = 1024

// Who has too many connections, or was revoked, is told so, on each that is refused, for refusalLinger; of more than maxRefusing such connections at a
// time the later ones are closed without a word.
const (
	refusalLinger = 3 * time.Second
	maxRefusing   = 64
)

// Bound says how many connections one identity may have open, instead of DefaultPerIdentity; 0 or less: that. Call it before the
// server serves.
func (c *Connections) Bound(perIdentity int) {
	if perIdentity > 0 {
		c.most = perIdentity
	}
}

// Count answers how many connections are open, and how many have been refused because their identity had too many.
func (c *Connections) Count() (open int, refused uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), c.refused
}

// admit takes p in; an error closes it. The peer of one too many is served nothing but the reason.
func (c *Connections) admit(p *proven) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[p.id] < c.most {
		c.of[p.id]++
		c.open[p] = struct{}{}
		return nil
	}
	c.refused++
	why := fmt.Errorf("%s has %d connections to this control plane already, and may have no more: end some, or start it with a larger --connections-per-identity", p.id, c.most)
	if len(c.refusing) >= maxRefusing {
		return why
	}
	c.tell(p, status.Error(codes.ResourceExhausted, why.Error()))
	return nil
}

// turnAway has p, which was admitted, served nothing but why: it was revoked. An error closes it.
func (c *Connections) turnAway(p *proven, why error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.over {
		return nil
	}
	c.gone(p)
	if len(c.refusing) >= maxRefusing {
		return why
	}
	code := codes.PermissionDenied
	if errors.Is(why, svid.ErrCertificate) {
		code = codes.Unauthenticated // another certificate may be good
	}
	c.tell(p, status.Error(code, why.Error()))
	return nil
}

// tell has every call on p answered with why until p is closed, soon. The caller holds mu.
func (c *Connections) tell(p *proven, why error) {
	p.over = true
	c.open[p] = struct{}{}
	c.refusing[p.RemoteAddr().String()] = why
	p.linger = time.AfterFunc(refusalLinger, func() { p.Close() })
}

// gone takes p out. The caller holds mu.
func (c *Connections) gone(p *proven) {
	if _, ok := c.open[p]; !ok {
		return
	}
	delete(c.open, p)
	if p.over {
		p.linger.Stop()
		delete(c.refusing, p.RemoteAddr().String())
		return
	}
	if c.of[p.id]--; c.of[p.id] == 0 {
		delete(c.of, p.id)
	}
}

// refusal answers why nothing is served on the connection of a call; nil: it is.
func (c *Connections) refusal(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return nil
	}
	c.mu.Lock()
	why := error(nil)
	if len(c.refusing) > 0 {
		why = c.refusing[p.Addr.String()]
	}
	c.mu.Unlock()
	return why
}

// refusals are the options of a server that has calls on connections that are refused answered with the reason.
func (c *Connections) refusals() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := c.refusal(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := c.refusal(s.Context()); err != nil {
				return err
			}
			return next(srv, s)
		}),
	}
}

// bounded is what Connections counts. Its mu guards it.
type bounded struct {
	most     int
	of       map[spiffe.ID]int
	refusing map[string]error // what calls are answered, by the address of the peer
	refused  uint64
}
