package trust

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
)

// Report is everything that proves anybody's identity, and how long that lasts.
type Report struct {
	TrustDomain string        `json:"trustDomain"`
	Issuer      string        `json:"issuer"` // who signs, and where
	First       Expiry        `json:"first"`  // the first certificate in use to end anywhere
	Rotation    Rotation      `json:"rotation"`
	Authorities []Certificate `json:"authorities"` // the one that signs first
	Control     []Certificate `json:"control"`     // the control plane's own chain, root first
	Workloads   []Workload    `json:"workloads"`
	Aliases     []string      `json:"aliases"`   // trust domains that count as TrustDomain
	Federated   []Federated   `json:"federated"` // those whose identities get in where a policy names them
	Alarms      []Alarm       `json:"alarms"`
	Revoked     int           `json:"revoked"` // how many revocations are in force
}

// Expiry is when what ends.
type Expiry struct {
	What string    `json:"what"`
	Ends time.Time `json:"ends"`
}

// Rotation is where the authority stands between two roots.
type Rotation struct {
	Stage uint64    `json:"stage"`
	Phase ca.Phase  `json:"phase"`
	Back  bool      `json:"back,omitempty"`
	Since time.Time `json:"since"`
	Waits []ca.Wait `json:"waits,omitempty"` // what stands in the way of the next step
}

// Certificate is one certificate of a chain.
type Certificate struct {
	Role    string    `json:"role"` // root, cross-signed root, intermediate, leaf
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Serial  string    `json:"serial"` // hexadecimal
	Begins  time.Time `json:"begins"`
	Ends    time.Time `json:"ends"`
	Note    string    `json:"note,omitempty"`
}

// Workload is what one workload proves itself with.
type Workload struct {
	Workload  string        `json:"workload"`
	Identity  string        `json:"identity"`
	Chain     []Certificate `json:"chain"` // root first
	Connected bool          `json:"connected"`
	Since     time.Time     `json:"since"`             // of Connected
	Behind    bool          `json:"behind,omitempty"`  // it has not acknowledged the roots of this stage
	Failing   string        `json:"failing,omitempty"` // why it could not renew its certificate last
	Ahead     time.Duration `json:"ahead,omitempty"`   // of its machine's clock, before ours
	Refused   time.Time     `json:"refused,omitzero"`  // since when its proxy comes with a leaf that was revoked; zero: it does not
}

// Alarm is something that will hurt unless somebody does something.
type Alarm struct {
	What    string        `json:"what"`
	Message string        `json:"message"`
	Left    time.Duration `json:"left,omitempty"` // until it hurts; 0: it does not by itself
}

// ownIssuer is who signs unless somebody else does.
const ownIssuer = "the mesh's own authority"

// Report answers everything.
func (k *Keeper) Report() *Report { return k.report(k.cfg.Now()) }

// Rotation answers where the authority stands between two roots.
func (k *Keeper) Rotation() Rotation {
	now := k.cfg.Now()
	return rotationOf(k.cfg.CA.Status(now, k.standing(now)))
}

func rotationOf(s ca.Status) Rotation {
	return Rotation{Stage: s.Stage, Phase: s.Phase, Back: s.Back, Since: s.Since, Waits: s.Waits}
}

func (k *Keeper) report(now time.Time) *Report {
	m := k.standing(now)
	s := k.cfg.CA.Status(now, m)
	r := &Report{TrustDomain: k.cfg.CA.TrustDomain(), Issuer: cmp.Or(s.Issuer, ownIssuer), Authorities: []Certificate{}, Control: []Certificate{}, Workloads: []Workload{}, Alarms: []Alarm{},
		Rotation: rotationOf(s)}
	for i, line := range s.Lines() {
		note := "signs"
		if i > 0 {
			note = "believed"
		}
		r.Authorities = append(r.Authorities, certificate("root", line.Root, note))
		if line.Cross != nil {
			r.Authorities = append(r.Authorities, certificate("cross-signed root", line.Cross, ""))
		}
		if line.Intermediate != nil {
			r.Authorities = append(r.Authorities, certificate("intermediate", line.Intermediate, note))
		}
	}
	for _, a := range r.Authorities {
		if a.Note == "signs" {
			r.First.take(a.Role+" "+a.Subject, a.Ends)
		}
	}
	k.mu.Lock()
	r.Revoked = len(k.revoked)
	for w, h := range k.holders {
		r.Workloads = append(r.Workloads, h.describe(w, s, slices.Contains(m.Behind, w), k.trust.Refuses(h.id, h.chain) != nil, now))
		if h.connected {
			r.First.take("certificate of "+w, h.ends())
		}
	}
	k.mu.Unlock()
	slices.SortFunc(r.Workloads, func(a, b Workload) int { return strings.Compare(a.Workload, b.Workload) })
	k.own(r, s, now)
	k.alarm(r, s, m, now)
	k.believed(r, now)
	return r
}

func (e *Expiry) take(what string, ends time.Time) {
	if e.Ends.IsZero() || ends.Before(e.Ends) {
		e.What, e.Ends = what, ends
	}
}

func certificate(role string, c *x509.Certificate, note string) Certificate {
	subject := c.Subject.CommonName
	if role == "leaf" && len(c.URIs) == 1 {
		subject = c.URIs[0].String()
	}
	return Certificate{Role: role, Subject: subject, Issuer: c.Issuer.CommonName, Serial: c.SerialNumber.Text(16),
		Begins: c.NotBefore.UTC(), Ends: c.NotAfter.UTC(), Note: note}
}

// revoked is the note of a leaf that is.
const revoked = "REVOKED"

func (h *holder) describe(name string, s ca.Status, behind, refused bool, now time.Time) Workload {
	w := Workload{Workload: name, Identity: h.id.String(), Connected: h.connected, Since: h.since, Behind: behind, Failing: h.failing, Ahead: h.ahead,
		Chain: chainOf(h.chain, s)}
	if refused {
		w.Chain[len(w.Chain)-1].Note = revoked
		if now.Sub(h.comes) <= comesFor {
			w.Refused = h.comesSince
		}
	}
	return w
}

// chainOf describes a chain (leaf first), root first.
func chainOf(chain []*x509.Certificate, s ca.Status) (out []Certificate) {
	for i, c := range chain {
		role := "leaf"
		switch {
		case i > 0 && slices.ContainsFunc(s.Lines(), func(l ca.Line) bool { return bytes.Equal(l.Root.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) }):
			role = "cross-signed root"
		case i > 0:
			role = "intermediate"
		}
		out = append(out, certificate(role, c, ""))
	}
	if root := rootOf(chain, s); root != nil {
		out = append(out, certificate("root", root, ""))
	}
	slices.Reverse(out)
	return out
}

// rootOf answers the root that a chain (leaf first) leads to: that of the first certificate which one has signed. nil: there is none.
func rootOf(chain []*x509.Certificate, s ca.Status) *x509.Certificate {
	for _, c := range chain {
		for _, line := range s.Lines() {
			if ca.IssuedBy(c, line.Root) {
				return line.Root
			}
		}
	}
	return nil
}

// own adds what the control plane proves itself with; its chain shows more, for join tokens.
func (k *Keeper) own(r *Report, s ca.Status, now time.Time) {
	if k.cfg.Own == nil {
		return
	}
	id, failing := k.cfg.Own()
	var chain []*x509.Certificate
	for _, der := range id.Certificate.Certificate[:min(2, len(id.Certificate.Certificate))] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return // it was made here
		}
		chain = append(chain, c)
	}
	r.Control = chainOf(chain, s)
	r.First.take("certificate of the control plane", id.NotAfter)
	left := id.NotAfter.Sub(now)
	if failing != nil || left < time.Duration(alarmLeft*float64(id.Life())) {
		r.Alarms = append(r.Alarms, Alarm{What: "certificate of the control plane", Left: left.Round(time.Second),
			Message: fmt.Sprintf("is not renewed, and ends in %s: %v", left.Round(time.Second), failing)})
	}
}

// alarm adds what will hurt.
func (k *Keeper) alarm(r *Report, s ca.Status, m ca.Standing, now time.Time) {
	add := func(what string, left time.Duration, format string, args ...any) {
		r.Alarms = append(r.Alarms, Alarm{What: what, Left: left.Round(time.Second), Message: fmt.Sprintf(format, args...)})
	}
	ends := func(what string, c *x509.Certificate, life time.Duration, next string) {
		left := c.NotAfter.Sub(now)
		switch {
		case left <= 0:
			add(what, left, "has ended %s ago: %s", (-left).Round(time.Second), next)
		case left < time.Duration(alarmLeft*float64(life)):
			add(what, left, "ends in %s: %s", left.Round(time.Second), next)
		}
	}
	root, middle := s.Signing.Root, s.Signing.Intermediate
	life := func(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) - ca.Backdate }
	if s.Issuer != "" {
		next := "replace it at the issuer, " + s.Issuer + "; what is new there is taken by itself"
		ends("root certificate", root, life(root), next)
		if middle != nil {
			ends("intermediate certificate", middle, life(middle), next)
		}
	} else {
		ends("root certificate", root, life(root), "it should have been replaced; 'tulle cert rotate --root', and see below who does not acknowledge")
		ends("intermediate certificate", middle, life(middle), "it should have been replaced; 'tulle cert rotate --intermediate'")
		k.ownKeys(s, now, add)
	}
	for _, w := range s.Warnings {
		left := w.Left
		if w.First {
			left = r.First.Ends.Sub(now)
			w.Message += fmt.Sprintf("; the first to end is the %s, in %s", r.First.What, left.Round(time.Second))
		}
		add(w.What, left, "%s", w.Message)
	}
	k.stuck(r, s, m.Held, now, add)
	k.files(s, now, add)
	k.holding(r, k.cfg.Announced(), now, add)
}

// ownKeys tells of what only the mesh's own authority has.
func (k *Keeper) ownKeys(s ca.Status, now time.Time, add adder) {
	root, middle := s.Signing.Root, s.Signing.Intermediate
	if !s.Signing.RootKey {
		add("root key", middle.NotAfter.Sub(now), "is not in the ca folder: nothing can be signed when the intermediate ends, in %s; restore it from a copy, or rotate the root", middle.NotAfter.Sub(now).Round(time.Second))
	}
	if root.NotBefore.After(now) || middle.NotBefore.After(now) || now.Add(time.Minute).Before(s.Since) {
		add("clock", 0, "this machine's clock says %s, and the authority's certificates begin later: set it", now.UTC().Format(time.RFC3339))
	}
}

type adder = func(what string, left time.Duration, format string, args ...any)

// stuck tells of a rotation that somebody stands in the way of, for longer than it takes; held are those who have a certificate to
// renew first.
func (k *Keeper) stuck(r *Report, s ca.Status, held []string, now time.Time, add adder) {
	patience := min(stuckFor, k.cfg.CA.Leaf()/2)
	var who []string
	for _, w := range r.Rotation.Waits {
		if w.Who != "" && (now.Sub(s.Since) >= renewsIn || !slices.Contains(held, w.Who)) {
			who = append(who, w.Who+" "+w.Why)
		}
	}
	if len(who) == 0 || now.Sub(s.Since) < patience {
		return
	}
	old := s.Signing.Root
	if s.Other.Root != nil && s.Phase == ca.Signing {
		old = s.Other.Root
	}
	add("rotation of the root", old.NotAfter.Sub(now), "has stopped for %s: %s; restart or end it, or go on without it with 'tulle cert rotate --force'; the old root ends in %s",
		now.Sub(s.Since).Round(time.Second), strings.Join(who[:min(len(who), 5)], ", "), old.NotAfter.Sub(now).Round(time.Second))
}

// files tells of what happened to the authority's files.
func (k *Keeper) files(s ca.Status, now time.Time, add adder) {
	left, lost := s.Signing.Root.NotAfter.Sub(now), "nothing could have been signed after a restart"
	if s.Signing.Intermediate != nil {
		left = s.Signing.Intermediate.NotAfter.Sub(now)
	}
	if s.Issuer != "" {
		lost = "it would not have been known after a restart which roots are believed"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stepping != nil {
		add("the mesh CA", left, "%v; what it has signs for %s more", k.stepping, left.Round(time.Second))
	}
	switch {
	case k.broken != nil:
		add("files of the mesh CA", left, "%v; what is in memory signs for %s more, and is lost when this process ends", k.broken, left.Round(time.Second))
	case len(k.lost) > 0 && now.Sub(k.mended) < mendedFor:
		left := min(k.cfg.CA.Leaf(), s.Signing.Root.NotAfter.Sub(now)) // without the files
		add("files of the mesh CA", left, "%s had been removed or changed, and were written again from memory at %s: find out by whom; without that %s, and what had been would have ended in %s",
			strings.Join(k.lost, ", "), k.mended.Format(time.TimeOnly), lost, left.Round(time.Second))
	}
}

// holding tells of workloads. One that is not connected, and that the mesh does not know any more, has most likely ended.
func (k *Keeper) holding(r *Report, announced []string, now time.Time, add adder) {
	for i := range r.Workloads {
		w := &r.Workloads[i]
		leaf := w.Chain[len(w.Chain)-1]
		left := leaf.Ends.Sub(now)
		life := min(leaf.Ends.Sub(leaf.Begins)-ca.Backdate, k.cfg.CA.Leaf())
		switch {
		case !w.Refused.IsZero():
			if now.Sub(w.Refused) > replacedIn {
				add("certificate of "+w.Workload, 0, "was revoked, and its proxy still comes with it, for %s: its join token does not let it in again; start it with a new one ('tulle token'), or see its log", now.Sub(w.Refused).Round(time.Second))
			}
		case !w.Connected && !slices.Contains(announced, w.Workload):
		case w.Failing != "":
			add("certificate of "+w.Workload, left, "is not renewed, and ends in %s: %s", left.Round(time.Second), w.Failing)
		case !w.Connected && left > 0 && left < time.Duration(alarmLeft*float64(life)):
			add("certificate of "+w.Workload, left, "ends in %s, and its proxy has not been here for %s: start it again, or end it", left.Round(time.Second), now.Sub(w.Since).Round(time.Second))
		case w.Connected && left < time.Duration(alarmLeft*float64(life))-showLag:
			add("certificate of "+w.Workload, left, "ends in %s, and has not been renewed: see its log", left.Round(time.Second))
		}
		if w.Connected && w.Ahead.Abs() > clockAlarm {
			add("clock of "+w.Workload, 0, "its machine is %s ahead of this one: certificates are judged by this one's, other programs there are not; set the clock", w.Ahead.Round(time.Millisecond))
		}
	}
}

// raise writes alarms to the log: each when it begins, from time to time, and when it is over.
func (k *Keeper) raise(r *Report) {
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	on := map[string]bool{}
	for _, a := range r.Alarms {
		on[a.What] = true
		if at, ok := k.told[a.What]; !ok || now.Sub(at) >= alarmsAgain {
			k.told[a.What] = now
			k.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "alarm: "+a.What, slog.String("message", a.Message), slog.String("left", a.Left.String()))
		}
	}
	for what := range k.told {
		if !on[what] {
			delete(k.told, what)
			k.cfg.Log.Info("alarm is over: " + what)
		}
	}
	k.alarms = slices.SortedFunc(slices.Values(r.Alarms), func(a, b Alarm) int { return cmp.Compare(a.What, b.What) })
}

// Alarms answers those of the last look.
func (k *Keeper) Alarms() []Alarm {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.alarms)
}
