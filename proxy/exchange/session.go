package exchange

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Sessions (model.Session; Gateway API GEP-1619). The value that a client brings back is 25 bytes in base64url: 1, the names
// of backend and endpoint (router.Route.NameOf, cluster.NameOf), and when the session began and was seen last, in seconds
// since 1970. It is looked up among the endpoints of the route's own backends: whatever a client makes up leads nowhere else,
// and what is not found there begins a new session.

const (
	sessionVersion = 1
	sessionBytes   = 1 + 8 + 8 + 4 + 4
)

// sessionText is how the value is written; one session has one value.
var sessionText = base64.RawURLEncoding.Strict()

// session is what the client has brought.
type session struct {
	policy            *model.Session // nil: the route keeps none
	known             bool           // a session is under way
	backend, endpoint uint64
	begun, seen       uint32
}

// sessionOf answers the route's policy. A foreign chain needs the filter for that.
func (x *Exchange) sessionOf(r *router.Route) *model.Session {
	s, c := r.Session, x.origin.HTTP
	if c != nil && c.Session == nil {
		return nil
	}
	if c != nil && s == nil {
		s = c.Session
	}
	if s == nil || s.Header == "" && s.Cookie == "" {
		return nil
	}
	return s
}

// recall reads the session that the request belongs to.
func (x *Exchange) recall(r *router.Route) {
	p := x.sessionOf(r)
	if p == nil || p.Header == "" && !within(x.head.Target, p.Path) {
		return
	}
	s := &x.session
	s.policy = p
	var v []byte
	if p.Header != "" {
		v = x.head.Get(strings.ToLower(p.Header))
	} else {
		v = cookie(&x.head, p.Cookie)
	}
	var raw [sessionBytes]byte
	if len(v) != base64.RawURLEncoding.EncodedLen(sessionBytes) {
		return
	}
	if _, err := sessionText.Decode(raw[:], v); err != nil || raw[0] != sessionVersion {
		return
	}
	s.backend, s.endpoint = binary.BigEndian.Uint64(raw[1:]), binary.BigEndian.Uint64(raw[9:])
	s.begun, s.seen = binary.BigEndian.Uint32(raw[17:]), binary.BigEndian.Uint32(raw[21:])
	now := uint32(x.rec.Wall.Unix())
	s.known = !older(now, s.begun, p.Absolute) && !older(now, s.seen, p.Idle)
}

// older reports whether more than limit has passed since then; other proxies' clocks may be ahead of ours.
func older(now, then uint32, limit time.Duration) bool {
	return limit > 0 && now > then && time.Duration(now-then)*time.Second > limit
}

// within reports whether a browser sends a cookie of this path with a request for target (RFC 6265 section 5.1.4).
func within(target []byte, path string) bool {
	n := len(path)
	if n == 0 || path == "/" {
		return true
	}
	return len(target) >= n && string(target[:n]) == path && (path[n-1] == '/' || len(target) == n || target[n] == '/' || target[n] == '?')
}

// chooseBackend answers the backend of the request: its session's, its user's (sticky), or one by chance.
func (x *Exchange) chooseBackend(r *router.Route) *model.Backend {
	if s := &x.session; s.known {
		if b := r.Named(s.backend); b != nil && !b.Invalid { // also of weight 0: it gets no new sessions and keeps those it has
			return b
		}
		s.known = false
	}
	if len(r.Sticky) > 0 {
		if h, ok := x.combine(r.Sticky, true); ok {
			return r.Stick(h)
		}
	}
	return r.Choose(uint32(x.w.random.Uint64() >> 32))
}

// choose answers the endpoint of the attempt: the picker's, its session's if that takes requests, else the balancer's.
func (x *Exchange) choose(ch *cluster.Choice) (ep *cluster.Endpoint, from int, why failure.Reason) {
	if x.picked != nil {
		return x.choosePicked(ch)
	}
	if x.session.known {
		ep, from = x.cluster.Named(x.session.endpoint)
		if ep != nil && !slices.Contains(ch.Excluded, ep) && labelled(ep.Model(), ch.Subset) && x.cluster.Owns(ep, ch) {
			return ep, from, failure.None
		}
	}
	return x.cluster.Choose(ch)
}

func labelled(m *model.Endpoint, want []model.Label) bool {
	for _, l := range want {
		if !slices.Contains(m.Labels, l) {
			return false
		}
	}
	return true
}

// persist gives the client the session's value, if it has not got it already. Where sessions end by idleness that is done
// again now and then.
func (x *Exchange) persist(h *message.Head) {
	s := &x.session
	if s.policy == nil || x.ep == nil {
		return
	}
	endpoint, backend := cluster.NameOf(x.ep.Model()), uint64(0)
	if x.backend != nil {
		backend = x.route.NameOf(x.backend)
	}
	now := uint32(x.rec.Wall.Unix())
	begun := now
	if s.known && s.endpoint == endpoint && s.backend == backend {
		begun = s.begun
		if idle := s.policy.Idle; idle == 0 || now < s.seen+uint32(max(idle/sessionRenew, time.Second)/time.Second) {
			return
		}
	}
	var raw [sessionBytes]byte
	raw[0] = sessionVersion
	binary.BigEndian.PutUint64(raw[1:], backend)
	binary.BigEndian.PutUint64(raw[9:], endpoint)
	binary.BigEndian.PutUint32(raw[17:], begun)
	binary.BigEndian.PutUint32(raw[21:], now)
	if name := s.policy.Header; name != "" {
		n := len(x.notes)
		x.notes = sessionText.AppendEncode(x.notes, raw[:])
		value := x.notes[n:len(x.notes):len(x.notes)]
		h.Remove(strings.ToLower(name))
		h.Add(x.keepString(name), value)
		return
	}
	x.sessionCookie(raw[:], now-begun)
}

// sessionRenew: the value is renewed when this part of the idle time has passed.
const sessionRenew = 8

// sessionCookie makes the cookie of a session that began age seconds ago; setCookies sets it.
func (x *Exchange) sessionCookie(raw []byte, age uint32) {
	p := x.session.policy
	b := append(append(x.cookies, p.Cookie...), '=')
	b = sessionText.AppendEncode(b, raw)
	if p.Lifetime > 0 {
		left := max(p.Lifetime-time.Duration(age)*time.Second, 0)
		b = strconv.AppendInt(append(b, "; Max-Age="...), int64(left/time.Second), 10)
	}
	path := p.Path
	if path == "" {
		path = "/"
	}
	b = append(append(b, "; Path="...), path...)
	x.cookies = append(append(b, "; HttpOnly"...), 0)
}
