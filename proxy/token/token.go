// Package token asks requests for the tokens that a workload's AuthenticationPolicies want. It finds the token of a request, has
// it verified (model/token) and remembers for a while that it was; it takes the token out of the request and tells the program
// claims, if that is wanted. It promises that a request with a token that is not valid never passes, that nothing but a verified
// token fills a claim's field, and that nothing is allocated for a token that was seen before.
//
// Ring, which fetches keys in the background, is shared by all loops and safe for concurrent use, as are InForce and Guard. A
// Cache belongs to one loop. Nothing here waits: see Guard.Ask. Start reading there.
package token

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/token"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// InForce is what a port asks for now; the zero value and nil ask for nothing.
type InForce struct{ now atomic.Pointer[Guard] }

// Guard answers what is in force, nil: nothing.
func (f *InForce) Guard() *Guard {
	if f == nil {
		return nil
	}
	return f.now.Load()
}

// Set puts g in force, nil: nothing.
func (f *InForce) Set(g *Guard) { f.now.Store(g) }

// Guard is the issuers that are believed on one port, the most specific first. Immutable.
type Guard struct {
	issuers []*issuer
	all     bool       // every request needs a token
	some    *authz.Set // denies those whose path needs one; nil: none does
	by      string     // the policy that says all
	every   string     // the policies of the issuers, with commas between
	told    []string   // fields that only proxies may say
	named   string     // decision.Issuers
}

// issuer is a model.TokenIssuer and its keys.
type issuer struct {
	model  *model.TokenIssuer
	source *Source
}

// Guards makes the guard of each port of a service, for a workload with these labels; a port that asks for nothing has none. Once
// they are in force keep has the ring fetch what they need and nothing else. An error means that s cannot be enforced as a whole.
func (r *Ring) Guards(s *model.Security, labels []model.Label, ports []uint16) (guards map[uint16]*Guard, keep func(), err error) {
	out := map[uint16]*Guard{}
	var all []*issuer
	sources := map[sourceKey]*Source{}
	for i := range s.Tokens {
		m := &s.Tokens[i]
		if !wears(labels, m.Labels) {
			continue
		}
		src, err := r.source(m, sources)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, &issuer{model: m, source: src})
	}
	for _, p := range ports {
		g := &Guard{}
		var needs []model.PolicyRule // a rule for each policy, with its paths
		for _, i := range all {
			if len(i.model.Ports) > 0 && !slices.Contains(i.model.Ports, p) {
				continue
			}
			// Of two policies about one issuer the more specific says how it is checked; both may require a token.
			if i.model.Required && !g.all {
				g.all, g.by = true, i.model.Name
			}
			if len(i.model.RequiredPaths) > 0 {
				needs = append(needs, model.PolicyRule{Name: i.model.Name, To: []model.PolicyTarget{{Paths: i.model.RequiredPaths}}})
			}
			if slices.ContainsFunc(g.issuers, func(o *issuer) bool { return o.model.Issuer == i.model.Issuer }) {
				continue
			}
			g.issuers = append(g.issuers, i)
			if g.every != "" {
				g.every += ", "
			}
			g.every += i.model.Name
			for _, h := range i.model.ClaimHeaders {
				g.told = append(g.told, h.Header)
			}
		}
		if len(g.issuers) == 0 {
			continue
		}
		g.named = decision.Issuers(s, labels, p)
		if len(needs) > 0 {
			set, err := authz.Compile(&model.Security{Policies: []model.Policy{{Action: model.ActionDeny, Rules: needs}}}, nil, nil)
			if err != nil {
				return nil, nil, err
			}
			g.some = set
		}
		out[p] = g
	}
	return out, func() { r.keep(sources) }, nil
}

// wears reports whether a workload with these labels is one of those.
func wears(labels, wanted []model.Label) bool {
	return !slices.ContainsFunc(wanted, func(l model.Label) bool { return !slices.Contains(labels, l) })
}

// Issuers names whose tokens are believed: decision.Issuers.
func (g *Guard) Issuers() string { return g.named }

// Paths reports whether it depends on a request's path what it needs.
func (g *Guard) Paths() bool { return g.some != nil }

// Answer is what is known about the token of a request.
type Answer struct {
	// Token is verified; nil: there is none.
	Token *Verified
	// Reason refuses the request, None lets it go on.
	Reason failure.Reason
	// Why is the cause, for who runs the workload; nil: there is nothing to say.
	Why error
	// Policy is who wants the token, or says what it has to be; Issuer what a token that was read names as its issuer, believed or not.
	Policy, Issuer string
	// Wait is who tells when newer keys have come, which are needed to answer; nil: this is the answer.
	Wait *Source
}

// Verified is a token that was believed when it was asked about. Immutable.
type Verified struct {
	*token.Token
	// Principal is "issuer/subject".
	Principal string

	issuer *issuer
	keys   *token.Keys
	by     *token.Key      // of them
	fields []message.Field // that tell claims
}

var (
	errSeveral = errors.New("are several in one request, and it is not clear which one counts")
	errPlace   = errors.New("is where its issuer's tokens are not looked for")
	errNoKeys  = errors.New("cannot be verified: its issuer's keys could not be fetched")

	// ErrNone is why a request is refused that has no token.
	ErrNone = errors.New("is needed, and there is none")
	// ErrCrowd is why a token whose issuer's keys have to be waited for is refused where too many wait already.
	ErrCrowd = errors.New("cannot be verified: too many wait for its issuer's keys already")
)

// Ask answers for a request: path is as policies compare it, fresh says whether an answer that needs newer keys may wait for them.
func (g *Guard) Ask(c *Cache, h *message.Head, path []byte, now time.Time, fresh bool) Answer {
	raw, n := g.find(h)
	if n == 0 {
		if by, needed := g.Requires(c, h, path); needed {
			return Answer{Reason: failure.TokenMissing, Why: ErrNone, Policy: by}
		}
		return Answer{}
	}
	if n > 1 {
		return Answer{Reason: failure.TokenInvalid, Why: errSeveral, Policy: g.every}
	}
	sum := sha256.Sum256(raw)
	if v := c.seen[sum]; v != nil && slices.Contains(g.issuers, v.issuer) && v.keys == v.issuer.source.keys.Load() && v.InTime(v.issuer.model.Skew, now) == nil {
		if !v.issuer.places(h, raw) {
			return Answer{Reason: failure.TokenInvalid, Why: errPlace, Policy: v.issuer.model.Name, Issuer: v.Issuer}
		}
		return Answer{Token: v}
	}
	a := g.verify(h, raw, now, fresh)
	if a.Token != nil {
		c.put(sum, a.Token)
	}
	return a
}

// verify answers about a token that was not seen before, or not by these keys.
func (g *Guard) verify(h *message.Head, raw []byte, now time.Time, fresh bool) Answer {
	a := Answer{Reason: failure.TokenInvalid, Policy: g.every}
	refused := func(err error) Answer { a.Why = err; return a }
	t, err := token.Parse(raw)
	if err != nil {
		return refused(err)
	}
	a.Issuer = t.Issuer
	at := slices.IndexFunc(g.issuers, func(i *issuer) bool { return i.model.Issuer == t.Issuer })
	if at < 0 {
		return refused(token.ErrIssuer)
	}
	i := g.issuers[at]
	a.Policy = i.model.Name
	if !i.places(h, raw) {
		return refused(errPlace)
	}
	// What is cheap, and what no newer key changes, comes first.
	if err := t.Check(i.model.Issuer, i.model.Audiences, i.model.Skew, now); err != nil {
		return refused(err)
	}
	if _, ends := t.Ends(); !ends && !i.model.Endless {
		return refused(token.ErrEndless)
	}
	if !slices.Contains(i.model.Algorithms, t.Algorithm) {
		return refused(token.ErrAlgorithm)
	}
	keys := i.source.keys.Load()
	if keys == nil {
		if fresh && i.source.wanted() {
			return Answer{Wait: i.source, Policy: a.Policy, Issuer: a.Issuer}
		}
		a.Reason = failure.IssuerUnavailable
		return refused(errNoKeys)
	}
	by, err := t.Verify(keys, i.model.Algorithms)
	switch {
	case errors.Is(err, token.ErrNoKey) && fresh && i.source.wanted():
		return Answer{Wait: i.source, Policy: a.Policy, Issuer: a.Issuer}
	case err != nil:
		return refused(err)
	}
	return Answer{Token: &Verified{Token: t, Principal: t.Principal(), issuer: i, keys: keys, by: by, fields: i.fields(t)}}
}

// Requires reports whether a request needs a token, and by which policy: h is its head, path as policies compare it.
func (g *Guard) Requires(c *Cache, h *message.Head, path []byte) (by string, needed bool) {
	by, needed = g.needs(c, path)
	return by, needed && !preflight(h)
}

// Policy names who says what tokens of an issuer have to be; of one that is not believed all of them.
func (g *Guard) Policy(issuer string) string {
	for _, i := range g.issuers {
		if i.model.Issuer == issuer {
			return i.model.Name
		}
	}
	return g.every
}

// needs reports whether a request to a path needs a token, and by which policy.
func (g *Guard) needs(c *Cache, path []byte) (by string, needed bool) {
	if g.all || g.some == nil {
		return g.by, g.all
	}
	c.asked = authz.Attributes{HTTP: true, Path: unsafe.String(unsafe.SliceData(path), len(path))}
	v := g.some.Request(&c.asked)
	if c.asked.Path = ""; v.By != nil {
		by = v.By.Name
	}
	return by, !v.Allowed
}

// preflight reports whether a browser asks whether it may ask (Fetch standard, CORS-preflight fetch): it never sends tokens then.
// Policies are asked about it all the same.
func preflight(h *message.Head) bool {
	return string(h.Method) == "OPTIONS" && h.Has("origin") && h.Has("access-control-request-method")
}

// maxClaimField bounds the value of a field that tells a claim, in bytes.
const maxClaimField = 4 << 10

// fields makes the fields that tell claims. What a field cannot hold as it is, is not told: control characters, and commas within
// an entry of a list.
func (i *issuer) fields(t *token.Token) (out []message.Field) {
	for _, c := range i.model.ClaimHeaders {
		var all []string
		for n := 0; ; n++ {
			v, ok := t.Value(c.Claim, n)
			if !ok {
				break
			}
			all = append(all, v)
		}
		if len(all) > 1 {
			all = slices.DeleteFunc(all, func(s string) bool { return strings.Contains(s, ",") })
		}
		v := strings.TrimSpace(strings.Join(all, ","))
		if v == "" || len(v) > maxClaimField || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			continue
		}
		out = append(out, message.Field{Name: []byte(c.Header), Value: []byte(v)})
	}
	return out
}

// Dress takes out of a request what the client must not say itself and the token that is not for the program, and tells the
// program claims. t is nil where there is no token. scratch is memory for what is written anew; it is answered, grown.
func (g *Guard) Dress(h *message.Head, t *Verified, scratch []byte) []byte {
	if len(g.told) > 0 {
		h.Fields = slices.DeleteFunc(h.Fields, func(f message.Field) bool { return g.reserved(f.Name) })
	}
	if t == nil {
		return scratch
	}
	if !t.issuer.model.Forward {
		scratch = t.issuer.strip(h, scratch)
	}
	h.Fields = append(h.Fields, t.fields...)
	return scratch
}

// Tells reports whether a field tells a claim, in whatever spelling.
func (g *Guard) Tells(name []byte) bool { return g.reserved(name) }

// reserved reports whether a field is one that tells claims, also written with _ or . for -, which some programs take for the same.
func (g *Guard) reserved(name []byte) bool {
	for _, told := range g.told {
		if len(told) != len(name) {
			continue
		}
		same := true
		for i := 0; same && i < len(name); i++ {
			same = folded(name[i]) == folded(told[i])
		}
		if same {
			return true
		}
	}
	return false
}

func folded(c byte) byte {
	switch {
	case c == '_' || c == '.':
		return '-'
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

// Cache remembers which tokens were verified. It belongs to one loop; the zero value is empty.
type Cache struct {
	seen  map[[sha256.Size]byte]*Verified
	asked authz.Attributes
}

// maxSeen is how many tokens a loop remembers.
const maxSeen = 1024

func (c *Cache) put(sum [sha256.Size]byte, v *Verified) {
	if c.seen == nil {
		c.seen = map[[sha256.Size]byte]*Verified{}
	}
	if len(c.seen) >= maxSeen {
		for k := range c.seen { // any: who is in use comes back
			delete(c.seen, k)
			break
		}
	}
	c.seen[sum] = v
}

// Challenge answers the value of WWW-Authenticate for a refusal (RFC 6750 section 3), nil: none belongs there.
func Challenge(why failure.Reason) []byte {
	switch why {
	case failure.TokenMissing:
		return challengeMissing()
	case failure.TokenInvalid:
		return challengeInvalid()
	}
	return nil
}

func challengeMissing() []byte { return []byte(`Bearer realm="tulle"`) }
func challengeInvalid() []byte { return []byte(`Bearer realm="tulle", error="invalid_token"`) }

// find answers the token of a request, and how many different ones there are: 0, 1, or 2 for more.
func (g *Guard) find(h *message.Head) (raw []byte, n int) {
	for _, i := range g.issuers {
		for p := range i.model.From {
			each(&i.model.From[p], h, func(v []byte) {
				switch {
				case n == 0:
					raw, n = v, 1
				case n == 1 && !bytes.Equal(raw, v):
					n = 2
				}
			})
		}
	}
	return raw, n
}
