package trust

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

const kind = "Revocation"

// maxRevoked bounds the revocations in force: every proxy holds them all.
const maxRevoked = 1000

// maxReason bounds what is said about one, in bytes.
const maxReason = 200

// Revocation takes an identity, with all its certificates, or a single certificate out of use.
type Revocation struct {
	Identity string    `json:"identity,omitempty"` // no certificate is given to it until it is restored
	Serial   string    `json:"serial,omitempty"`   // in hexadecimal; of a leaf or of an intermediate
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Until    time.Time `json:"until"` // nothing that it is about is valid any more; proxies are not told of it then
}

// Name answers what it is about.
func (r Revocation) Name() string {
	if r.Identity != "" {
		return r.Identity
	}
	return r.Serial
}

func (r Revocation) key() store.Key {
	sum := sha256.Sum256([]byte(r.Name()))
	return store.Key{Kind: kind, Name: hex.EncodeToString(sum[:16])}
}

// model answers r as it travels; certificates begin so long before they are made.
func (r Revocation) model(backdate time.Duration) model.Revocation {
	m := model.Revocation{Identity: r.Identity, Until: r.Until.Unix()}
	if n, ok := new(big.Int).SetString(r.Serial, 16); ok && r.Serial != "" {
		m.Serial = n.Bytes()
		return m
	}
	// Certificates begin before they are made: those made after the revocation are not meant.
	m.Before = r.At.Add(time.Second - backdate).Unix()
	return m
}

// ErrInvalid is in the errors of what cannot be revoked, store.ErrNotFound in those of what is not.
var ErrInvalid = errors.New("cannot be revoked")

// Revoke takes what, a SPIFFE ID or the serial number of a certificate in hexadecimal, out of use at once. It answers when
// every proxy that is connected is being told.
func (k *Keeper) Revoke(ctx context.Context, what, reason string) (Revocation, error) {
	now := k.cfg.Now()
	r := Revocation{Reason: reason, At: now.UTC().Truncate(time.Second), Until: now.Add(k.cfg.CA.Leaf()).UTC().Truncate(time.Second).Add(time.Second)}
	if len(reason) > maxReason {
		return r, fmt.Errorf("%w: a reason of %d bytes: at most %d are kept", ErrInvalid, len(reason), maxReason)
	}
	if err := k.aim(&r, what); err != nil {
		return r, err
	}
	k.mu.Lock()
	n := len(k.revoked)
	k.mu.Unlock()
	if n >= maxRevoked {
		return r, fmt.Errorf("%w: %d revocations are in force already: revoke the identity instead of its certificates, or rotate the root ('tulle cert rotate --root')", ErrInvalid, n)
	}
	value, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	if _, err := k.cfg.Store.Put(ctx, store.Object{Key: r.key(), Value: value}, store.Any); err != nil {
		return r, err
	}
	k.cfg.Log.Warn("revoked", "what", r.Name(), "reason", reason)
	return r, k.changed(append(k.without(r), r))
}

// aim reads what is to be revoked.
func (k *Keeper) aim(r *Revocation, what string) error {
	if strings.HasPrefix(what, "spiffe://") {
		id, err := spiffe.ParseID(what)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if id = k.Trust().Canonical(id); id == serverID(k.cfg.CA.TrustDomain()) {
			return fmt.Errorf("%w: %s is the control plane's own identity: rotate the root instead", ErrInvalid, id)
		}
		r.Identity = id.String()
		return nil
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(what, ":", ""), 16)
	if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
		return fmt.Errorf("%w: %q is neither a SPIFFE ID nor a serial number in hexadecimal: 'tulle cert' lists both", ErrInvalid, what)
	}
	r.Serial = n.Text(16)
	s := k.cfg.CA.Status(k.cfg.Now(), ca.Standing{})
	for _, line := range s.Lines() {
		switch {
		case line.Root.SerialNumber.Cmp(n) == 0:
			return fmt.Errorf("%w: this is the root: replace it with 'tulle cert rotate --root'", ErrInvalid)
		case line.Intermediate != nil && line.Intermediate.SerialNumber.Cmp(n) == 0:
			return fmt.Errorf("%w: this intermediate signs, and every certificate is below it: replace it first with 'tulle cert rotate --intermediate', wait until 'tulle cert' shows it nowhere, and revoke it then", ErrInvalid)
		}
	}
	return nil
}

// serverID is that of attest.ServerID.
func serverID(trustDomain string) spiffe.ID {
	return spiffe.ID{TrustDomain: trustDomain, Namespace: "tulle-system", ServiceAccount: "control"}
}

// Restore takes a revocation back, which it answers: an identity gets certificates again, and those of before are good again as long
// as they last. It answers store.ErrNotFound where nothing of that name is revoked.
func (k *Keeper) Restore(ctx context.Context, what string) (Revocation, error) {
	r := Revocation{}
	if err := k.aim(&r, what); err != nil {
		return r, err
	}
	for _, was := range k.Revoked() {
		if was.Name() == r.Name() {
			r = was
		}
	}
	_, err := k.cfg.Store.Delete(ctx, r.key(), store.Any)
	if errors.Is(err, store.ErrNotFound) {
		return r, fmt.Errorf("%s is not revoked ('tulle cert revoked' lists what is): %w", r.Name(), store.ErrNotFound)
	}
	if err != nil {
		return r, err
	}
	k.cfg.Log.Warn("restored", "what", r.Name())
	return r, k.changed(k.without(r))
}

// Bounds of what Shows answers.
const maxNear, nearBy = 3, 3

// Shows answers the workloads that show what r is about, connected or not, in order; where there are none, the names that come near to
// r's: of identities, or the serial numbers of leaves.
func (k *Keeper) Shows(r Revocation) (workloads, near []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	apart := map[string]int{}
	for w, h := range k.holders {
		name := k.trust.Canonical(h.id).String()
		if r.Identity == "" {
			name = h.chain[0].SerialNumber.Text(16)
		}
		if name == r.Name() || r.Identity == "" && slices.ContainsFunc(h.chain, func(c *x509.Certificate) bool { return c.SerialNumber.Text(16) == r.Serial }) {
			workloads = append(workloads, w)
		} else if d := distance(name, r.Name(), nearBy); d <= nearBy {
			apart[name] = d
		}
	}
	slices.Sort(workloads)
	if len(workloads) == 0 {
		near = slices.SortedFunc(maps.Keys(apart), func(a, b string) int { return cmp.Or(apart[a]-apart[b], strings.Compare(a, b)) })
	}
	return workloads, near[:min(len(near), maxNear)]
}

// distance answers how many letters a and b are apart (to be written over, put in or left out); more than most is most+1.
func distance(a, b string, most int) int {
	if d := len(a) - len(b); d > most || -d > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return min(row[len(b)], most+1)
}

// Revoked answers what is revoked, the oldest first.
func (k *Keeper) Revoked() []Revocation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.revoked)
}

// Refuses answers why nobody is given a certificate for id, or heard who shows chain: it was revoked.
func (k *Keeper) Refuses(id spiffe.ID, chain []*x509.Certificate) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.revoked {
		if r.Identity != "" && r.Identity == id.String() {
			return fmt.Errorf("%s was %w at %s: 'tulle cert restore %[1]s' takes that back", id, svid.ErrRevoked, r.At.Format(time.RFC3339))
		}
	}
	err := k.trust.Refuses(id, chain)
	if errors.Is(err, svid.ErrCertificate) {
		k.comes(chain[0])
	}
	return err
}

// comesFor is how long somebody who has come with a revoked certificate counts as still coming: proxies try every few seconds.
const comesFor = 15 * time.Second

// comes takes that somebody shows a leaf that was revoked. The caller holds mu.
func (k *Keeper) comes(leaf *x509.Certificate) {
	now := k.cfg.Now()
	for _, h := range k.holders {
		if h.chain[0].SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			if now.Sub(h.comes) > comesFor {
				h.comesSince = now
			}
			h.comes = now
		}
	}
}

func (k *Keeper) without(r Revocation) []Revocation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.revoked), func(x Revocation) bool { return x.Name() == r.Name() })
}

// changed puts a list of revocations in force.
func (k *Keeper) changed(list []Revocation) error {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.mu.Lock()
	k.revoked = list
	k.mu.Unlock()
	return k.publish()
}

// reload takes what other control planes with the same store have revoked, and forgets single certificates that have ended.
func (k *Keeper) reload(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, filesEvery)
	defer cancel()
	list, err := k.stored(ctx)
	if err != nil {
		return // the store says itself that it is away; what is known stays in force
	}
	now := k.cfg.Now()
	list = slices.DeleteFunc(list, func(r Revocation) bool {
		if r.Identity != "" || now.Before(r.Until.Add(time.Hour)) {
			return false
		}
		_, err := k.cfg.Store.Delete(ctx, r.key(), store.Any)
		return err == nil || errors.Is(err, store.ErrNotFound)
	})
	k.mu.Lock()
	same := slices.Equal(list, k.revoked)
	k.mu.Unlock()
	if same {
		return
	}
	if err := k.changed(list); err != nil {
		k.cfg.Log.Error("whom the mesh believes cannot be told", "error", err)
	}
}

func (k *Keeper) stored(ctx context.Context) ([]Revocation, error) {
	objects, _, err := k.cfg.Store.List(ctx, kind, "")
	if err != nil {
		return nil, err
	}
	var list []Revocation
	for _, o := range objects {
		var r Revocation
		if err := json.Unmarshal(o.Value, &r); err != nil {
			return nil, fmt.Errorf("revocation %s: %w", o.Name, err)
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Revocation) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.Name(), b.Name())
	})
	return list, nil
}
