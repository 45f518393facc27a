// Package policy holds the policies that one proxy enforces for its workload: which model/authz.Set is in force now, what it
// says about an exchange or a connection, the log line of a denial, and who is open and has to be asked about again when
// policies change. It promises that policies are in force as a whole or not at all, that a proxy that has never heard any lets
// nobody in, that asking allocates nothing, and that the log has a bound. It evaluates nothing itself and ends nothing itself.
//
// InForce is safe for concurrent use; Open belongs to one loop. Start reading at InForce.Set.
package policy

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
)

// Config of an InForce. Everything has a default.
type Config struct {
	Labels []model.Label // of the workload
	// Expressions compiles the expressions of rules; nil: a Security that has one is refused.
	Expressions func(string) (authz.Expression, error)
	Log         *slog.Logger // nil: silent
	Lines       int          // of the log about denials, per second; default 10
}

// InForce is the policies of one proxy. The zero value and nil allow everything.
type InForce struct {
	cfg   Config
	rules atomic.Pointer[Rules]
	known atomic.Bool
	lines Lines // about denials
	dry   Lines // about what policies in dry run would decide
	// unheard are lines about what was let through although an authorizer has not answered.
	unheard Lines
}

// New makes one that lets nobody in until Set has been told what to let in.
func New(cfg Config) *InForce {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Lines <= 0 {
		cfg.Lines = PerSecond
	}
	p := &InForce{cfg: cfg}
	p.rules.Store(&Rules{of: p})
	return p
}

// Set puts s in force at once, for all loops. An error means that it cannot be enforced as a whole; what was in force stays.
func (p *InForce) Set(s *model.Security) error {
	set, err := authz.Compile(s, p.cfg.Labels, p.cfg.Expressions)
	if err != nil {
		return fmt.Errorf("the policies of %s cannot be enforced, those before stay in force: %w", s.Name, err)
	}
	var next *Rules
	if !set.Empty() {
		next = &Rules{set: set, of: p, authorizers: s.Authorizers, hops: int(s.TrustedHops)}
	}
	p.rules.Store(next)
	p.known.Store(true)
	return nil
}

// Known reports whether Set has put anything in force.
func (p *InForce) Known() bool { return p.known.Load() }

// Rules answers what has to be asked now; nil: everything is allowed, and there is nothing to record.
func (p *InForce) Rules() *Rules {
	if p == nil {
		return nil
	}
	return p.rules.Load()
}

// Rules is one state of what is in force. Immutable.
type Rules struct {
	set         *authz.Set // nil: nothing is known yet, and nobody is let in
	of          *InForce
	authorizers []model.Authorizer
	hops        int
}

// Admits reports whether something in force lets in identities of a federated trust domain, on any port.
func (r *Rules) Admits(trustDomain string) bool {
	return r != nil && r.set != nil && r.set.Admits(trustDomain)
}

// Moves answers when, after now, time alone may change what is allowed: Unix seconds; 0: never.
func (r *Rules) Moves(now int64) int64 {
	if r == nil || r.set == nil {
		return 0
	}
	return r.set.Moves(now)
}

// HTTP reports whether a port of the service takes nothing but HTTP, because something in force looks at requests.
func (r *Rules) HTTP(port uint16) bool { return r != nil && r.set != nil && r.set.HTTP(port) }

// Tokens reports whether something in force on a port of the service looks at tokens or their claims.
func (r *Rules) Tokens(port uint16) bool { return r != nil && r.set != nil && r.set.Tokens(port) }

// ServerNames reports whether something in force looks at the server names of connections to a port of the service.
func (r *Rules) ServerNames(port uint16) bool {
	return r != nil && r.set != nil && r.set.ServerNames(port)
}

// TrustedHops answers how many proxies in front of published ports are believed in what x-forwarded-for says.
func (r *Rules) TrustedHops() int { return r.hops }

// Authorizer answers the external authorizer of a name; nil: there is none.
func (r *Rules) Authorizer(name string) *model.Authorizer {
	for i := range r.authorizers {
		if r.authorizers[i].Name == name {
			return &r.authorizers[i]
		}
	}
	return nil
}

// Request asks about a request, tells d what was decided, and the log of a denial. id is the request's, for the log.
func (r *Rules) Request(a *authz.Attributes, d *record.Decision, id []byte) authz.Verdict {
	if r.set == nil {
		return r.unknown(a, d, id)
	}
	v := r.set.Request(a)
	r.note(&v, a, d, true, id)
	return v
}

// Connection asks about a connection that is not HTTP, as Request does.
func (r *Rules) Connection(a *authz.Attributes, d *record.Decision) authz.Verdict {
	if r.set == nil {
		return r.unknown(a, d, nil)
	}
	v := r.set.Connection(a)
	r.note(&v, a, d, false, nil)
	return v
}

// Caller is who is at the other end of a connection, as far as that is proven, and which port of the service it has called.
// It is made once per connection and never changes.
type Caller struct {
	Principal, TrustDomain, Namespace string // of the verified certificate; "": none was shown
	Account                           string // "namespace/service account"
	Federated                         bool   // it is another mesh's
	IP, RemoteIP                      netip.Addr
	Port                              uint16
}

// NewCaller answers a caller that has proven id, zero for nobody, from this address.
func NewCaller(id spiffe.ID, from netip.Addr, port uint16) *Caller {
	c := &Caller{IP: from.Unmap(), RemoteIP: from.Unmap(), Port: port}
	if id != (spiffe.ID{}) {
		c.Principal, c.TrustDomain, c.Namespace = id.String(), id.TrustDomain, id.Namespace
		c.Account = id.Namespace + "/" + id.ServiceAccount
	}
	return c
}

// Fill sets what is known of the connection; the rest of a is left alone.
func (c *Caller) Fill(a *authz.Attributes) {
	a.Principal, a.TrustDomain, a.Namespace, a.Account = c.Principal, c.TrustDomain, c.Namespace, c.Account
	a.Federated, a.IP, a.RemoteIP, a.Port = c.Federated, c.IP, c.RemoteIP, c.Port
}
