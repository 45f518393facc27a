package pool

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/keepalive"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Servers close connections that rest, and a request that is sent at that moment is lost. So each server is watched
// (proxy/keepalive) and no connection to it is given a request when it has rested for longer than is safe. Connections to
// other proxies of the mesh are not of this: those say GOAWAY and wait for what is on its way.

// server is whom is learned about: loops and identities learn apart.
type server struct {
	address netip.AddrPort
	kind    Kind
	tls     bool
}

// maxServers bounds what is remembered of servers without a connection.
const maxServers = 1024

// maxWatched is how many connections per target are too old to be used and stay all the same, so that it is seen when
// their server closes them.
const maxWatched = 4

// learned answers what is known of a target's server.
func (p *Pool) learned(t *Target) *keepalive.Envelope {
	key := server{t.Address, t.Kind, t.TLS != nil}
	e := p.servers[key]
	if e == nil {
		if len(p.servers) >= maxServers {
			for other := range p.servers { // any one; who still has it goes on with it
				delete(p.servers, other)
				break
			}
		}
		e = &keepalive.Envelope{}
		p.servers[key] = e
	}
	return e
}

// old reports whether an idle HTTP/1.1 connection has rested for too long.
func (h *host) old(c upstream.Conn, careful bool) bool {
	u, ok := c.(*upstream.HTTP1)
	if !ok {
		return false
	}
	rest := u.Rest()
	return rest > safe && rest > h.learned.Age(h.pool.cfg.Loop.Now(), careful, h.pool.cfg.Shared.Longest())
}

// safe is a rest that is too short to ask.
const safe = 10 * time.Millisecond

// young reports whether a connection of HTTP/2 may be used: not when its server was seen to hang up without GOAWAY, and it
// has rested for too long.
func (h *host) young(c upstream.Conn) bool {
	u, ok := c.(*upstream.HTTP2)
	if !ok || h.target.Kind == Mesh {
		return true
	}
	rest := u.Rest()
	if rest <= safe || !h.learned.Known(h.pool.cfg.Loop.Now()) {
		return true
	}
	return rest <= h.learned.Age(h.pool.cfg.Loop.Now(), true, keepalive.Cautious)
}

// saw notes what a request that is done tells about its server.
func (h *host) saw(c upstream.Conn) {
	u, ok := c.(*upstream.HTTP1)
	if !ok {
		return
	}
	if u.Served() == 1 && u.Hint() != nil {
		h.learned.Hint(h.pool.cfg.Loop.Now(), u.Hint())
	}
	if u.Rested() >= keepalive.Cautious {
		h.learned.Lived(h.pool.cfg.Loop.Now(), u.Rested())
	}
}

// rested notes that a connection is given up that its server has kept all the time.
func (h *host) rested(c upstream.Conn) {
	if u, ok := c.(*upstream.HTTP1); ok {
		h.learned.Lived(h.pool.cfg.Loop.Now(), u.Rest())
	}
}

// lost notes that a connection has ended, if its server has done it.
func (h *host) lost(c upstream.Conn) {
	if h.target.Kind == Mesh {
		return
	}
	if u, ok := c.(interface {
		Quit() (time.Duration, bool)
	}); ok {
		if rest, quit := u.Quit(); quit {
			h.learned.Closed(h.pool.cfg.Loop.Now(), rest, c.Served())
		}
	}
}

// trim ends idle connections that are too old for any request, but a few that are watched.
func (h *host) trim() {
	for len(h.idle) > maxWatched && h.old(h.idle[0], false) {
		h.rested(h.idle[0])
		h.idle[0].Retire() // which takes it out
	}
}

// makeRoom ends the oldest idle connection: somebody waits who can use none of them, and there may not be more.
func (h *host) makeRoom() {
	if len(h.idle) == 0 || h.making {
		return
	}
	h.making = true
	h.rested(h.idle[0])
	h.idle[0].Retire()
	h.making = false
}
