package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Phase is where the authority stands between two roots.
type Phase string

// Phases, in the order in which a rotation passes through them, and a rollback back.
const (
	Steady    Phase = "steady"    // one root, which signs
	Announced Phase = "announced" // the next root is believed too; the old one signs
	Signing   Phase = "signing"   // the next one signs; the old one is still believed
)

// state is what outlives the process, in one file.
type state struct {
	Stage   uint64 // counts changes of what is believed or signs
	Phase   Phase
	Current int       // generation; signs but in Signing
	Next    int       // generation; 0 in Steady
	Made    int       // the highest generation there ever was
	Past    []int     // generations that join tokens may pin
	Back    bool      // the rotation is being taken back
	Forced  bool      // the next step is taken whoever stands in its way
	Since   time.Time // of the phase
	Renew   time.Time // certificates made before are to be renewed soon; zero: none
	// TrustDomain is that of the authority, where it is another one than its first root's.
	TrustDomain string    `json:",omitempty"`
	Ends        time.Time // when the last certificate ends that the generation which does not sign has signed; zero: there is none
}

// Standing is how the mesh stands to the authority, as far as the next step depends on it.
type Standing struct {
	Behind []string // may have a valid certificate, and have not acknowledged what is believed in this stage
	Held   []string // show a certificate of the generation that does not sign
	// Lapses is when the first certificate ends of those that are here, the control plane's own too; zero: that is not known.
	Lapses time.Time
}

// signing answers the generation that signs, other the one that is believed besides, nil if there is none. The caller
// holds mu.
func (c *CA) signing() *generation {
	if c.state.Phase == Signing {
		return c.next
	}
	return c.now
}

func (c *CA) other() *generation {
	switch c.state.Phase {
	case Announced:
		return c.next
	case Signing:
		return c.now
	}
	return nil
}

// Errors of what is asked for at the wrong time.
var (
	ErrUnderWay  = errors.New("a rotation of the root is under way: 'tulle cert' shows where it stands; take it back with --rollback, or go on with --force")
	ErrNoneToDo  = errors.New("no rotation of the root is under way")
	ErrNotOurs   = errors.New("that is not ours to do")
	ErrNoRootKey = errors.New("the root's key is not there: restore root-key.pem in the ca folder of the data folder from a copy, or rotate the root")
)

// RotateRoot begins a rotation: a new root is made, signed by the old one too, and believed besides it.
func (c *CA) RotateRoot(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.announce(now)
}

func (c *CA) announce(now time.Time) error {
	if c.state.Phase != Steady {
		return ErrUnderWay
	}
	next, err := c.newGeneration(c.state.Made+1, c.now, now)
	if err != nil {
		return err
	}
	if err := saveGeneration(c.dir, next); err != nil {
		return fmt.Errorf("the new root cannot be kept: %w", err)
	}
	s := c.state
	s.Phase, s.Next, s.Made, s.Back, s.Forced, s.Ends = Announced, next.n, next.n, false, false, time.Time{}
	if err := c.enter(s, now); err != nil {
		return err
	}
	c.next = next
	return nil
}

// RotateIntermediate puts a new intermediate in force. Leaves that the one before has signed stay valid, and are asked to be
// renewed soon.
func (c *CA) RotateIntermediate(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.signing()
	if g.root.key == nil {
		return ErrNoRootKey
	}
	if err := c.newMiddle(g, now); err != nil {
		return err
	}
	return c.renew(now)
}

// RotateLeaves asks every workload to have its certificate renewed soon.
func (c *CA) RotateLeaves(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renew(now)
}

func (c *CA) renew(now time.Time) error {
	s := c.state
	s.Stage, s.Renew = s.Stage+1, now
	return c.keep(s)
}

// Rollback has the rotation that is under way go back, stage by stage, to the old root. What the new one has signed stays
// valid until the end: the last step waits for it.
func (c *CA) Rollback() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Steady {
		return ErrNoneToDo
	}
	s := c.state
	s.Back, s.Forced = true, false
	return c.keep(s)
}

// Force has the next step of the rotation taken whoever stands in its way: those lose their connections until they have
// renewed their certificates.
func (c *CA) Force() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Steady {
		return ErrNoneToDo
	}
	s := c.state
	s.Forced = true
	return c.keep(s)
}

// Step moves on as far as the mesh allows: it begins what is due, and takes the next step of a rotation when nobody stands in
// its way. It reports whether what is believed, or who signs, has changed; the caller tells the mesh. Call it again and again.
func (c *CA) Step(now time.Time, m Standing) (moved bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if renewed, err := c.renewMiddle(c.signing(), now); renewed || err != nil {
		return false, err
	}
	if c.state.Phase == Steady {
		if !c.now.root.old(now) {
			return false, nil
		}
		return true, c.announce(now)
	}
	if !c.state.Forced && len(c.waits(now, m)) > 0 {
		return false, nil
	}
	switch {
	case c.state.Phase == Announced && !c.state.Back:
		err = c.sign(now)
	case c.state.Phase == Signing && c.state.Back:
		err = c.signAgain(now)
	case c.state.Phase == Signing:
		err = c.finish(now)
	default:
		err = c.drop(now)
	}
	return err == nil, err
}

// sign has the next generation sign, after a rehearsal.
func (c *CA) sign(now time.Time) error {
	for who, root := range map[string]*x509.Certificate{"only the new root": c.next.root.cert, "only the old root": c.now.root.cert} {
		if c.next.cross == nil && root == c.now.root.cert {
			continue // everybody has acknowledged the new one, or was given up
		}
		if err := c.rehearse(c.next, now, root); err != nil {
			return fmt.Errorf("rehearsal: what the new intermediate signs is not believed by whoever knows %s: %w: take the rotation back with 'tulle cert rotate --rollback'", who, err)
		}
	}
	s := c.state
	s.Phase, s.Renew, s.Ends = Signing, now, now.Add(c.cfg.Leaf)
	return c.enter(s, now)
}

// signAgain has the old generation sign again.
func (c *CA) signAgain(now time.Time) error {
	s := c.state
	s.Phase, s.Renew, s.Ends = Announced, now, now.Add(c.cfg.Leaf)
	return c.enter(s, now)
}

// finish takes the old root out.
func (c *CA) finish(now time.Time) error {
	f := &former{n: c.now.n, root: c.now.root.cert, cross: c.next.cross}
	if err := saveFormer(c.dir, f); err != nil {
		return err
	}
	past := c.pinnable(now)
	s := c.state
	s.Phase, s.Current, s.Next, s.Ends = Steady, c.next.n, 0, time.Time{}
	s.Past = []int{f.n}
	for _, p := range past {
		s.Past = append(s.Past, p.n)
	}
	if err := c.enter(s, now); err != nil {
		return err
	}
	c.past = append([]*former{f}, past...)
	c.now, c.next = c.next, nil
	c.now.cross = nil
	return sweep(c.dir, c.state)
}

// maxPast bounds how many former roots a join token may pin.
const maxPast = 4

// pinnable answers the former roots that have not ended, those that may be kept besides one more.
func (c *CA) pinnable(now time.Time) (out []*former) {
	for _, f := range c.past {
		if now.Before(f.root.NotAfter) && len(out) < maxPast-1 {
			out = append(out, f)
		}
	}
	return out
}

// drop ends a rotation that was taken back.
func (c *CA) drop(now time.Time) error {
	s := c.state
	s.Phase, s.Next, s.Back, s.Ends = Steady, 0, false, time.Time{}
	if err := c.enter(s, now); err != nil {
		return err
	}
	c.next = nil
	return sweep(c.dir, c.state)
}

// enter puts a phase in force once it is on disk.
func (c *CA) enter(s state, now time.Time) error {
	s.Stage, s.Since, s.Forced = s.Stage+1, now, false
	return c.keep(s)
}

func (c *CA) keep(s state) error {
	if err := saveState(c.dir, s); err != nil {
		return fmt.Errorf("the stage of the rotation cannot be kept: %w", err)
	}
	c.state = s
	return nil
}

// Wait is who or what stands in the way of the next step.
type Wait struct {
	Who string    `json:"who,omitempty"` // a workload; "": Until
	Why string    `json:"why"`
	End time.Time `json:"until,omitzero"`
}

// waits answers what stands in the way of the next step. The caller holds mu.
func (c *CA) waits(now time.Time, m Standing) (out []Wait) {
	s := &c.state
	forward := s.Phase == Announced && !s.Back
	if s.Phase == Signing && s.Back || forward && c.next.cross != nil && c.urgent(now) {
		return nil
	}
	if s.Phase == Announced && s.Back && s.Ends.IsZero() { // the next root has signed nothing
		return nil
	}
	if !s.Back {
		for _, who := range m.Behind {
			out = append(out, Wait{Who: who, Why: "has not acknowledged the roots of this stage"})
		}
	}
	if forward {
		return out
	}
	for _, who := range m.Held {
		out = append(out, Wait{Who: who, Why: "shows a certificate of the root that is to go"})
	}
	if now.Before(s.Ends) {
		out = append(out, Wait{Why: "certificates of the root that is to go may be valid where they cannot be seen", End: s.Ends})
	}
	return out
}

// urgent reports that the old root is so close to its end that waiting harms more than going on: who knows only the old root
// believes the new one's signatures by the cross-signed certificate.
func (c *CA) urgent(now time.Time) bool {
	return now.Add(max(c.cfg.Leaf*3/2, c.now.root.life()/20)).After(c.now.root.cert.NotAfter)
}
