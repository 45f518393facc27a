// Package token keeps the join tokens of the mesh: `tulle token` makes one, a workload of another machine
// redeems it. Only a hash of the secret is stored. A token is for one namespace, ends by itself, and is used a
// bounded number of times, counted in the store so that two replicas cannot both give out the last use. Safe
// for concurrent use. Start reading at Tokens.Redeem.
package token

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/identity/jointoken"
)

const kind = "JoinToken"

// Bounds and defaults.
const (
	DefaultTTL  = 15 * time.Minute
	MaxTTL      = 30 * 24 * time.Hour
	DefaultUses = 1
	MaxUses     = 10_000
)

// ErrRefused is the answer to a token that does not let anybody in; it does not say more than the bearer may know.
var ErrRefused = errors.New("the join token is unknown, has ended, was used up, or is for other workloads: make one with 'tulle token --service NAME'")

// Spec says what a token allows. Zero values are the defaults, but one of ServiceAccount, Service and Any is needed.
type Spec struct {
	Namespace      string        `json:"namespace"`                // "" is default
	ServiceAccount string        `json:"serviceAccount,omitempty"` // "": the one named as Service
	Service        string        `json:"service,omitempty"`        // that the workloads may serve; "": the one named as ServiceAccount
	Any            bool          `json:"any,omitempty"`            // any service account of the namespace, for any service
	TTL            time.Duration `json:"ttl,omitempty"`
	Uses           int           `json:"uses,omitempty"`
}

// Info is a token as it is listed.
type Info struct {
	ID             string    `json:"id"`
	Namespace      string    `json:"namespace"`
	ServiceAccount string    `json:"serviceAccount,omitempty"` // "": any of the namespace
	Service        string    `json:"service,omitempty"`        // "": any
	Expires        time.Time `json:"expires"`
	Uses           int       `json:"uses"` // that are left
}

type stored struct {
	Info
	Hash []byte `json:"hash"`
}

// Tokens are the join tokens in a store.
type Tokens struct {
	store store.Store
	root  func() []byte
}

// New answers the tokens kept in s, of a mesh whose root certificate (DER) root answers: a token pins the one of its time.
func New(s store.Store, root func() []byte) *Tokens { return &Tokens{store: s, root: root} }

// Issue makes a token. Its text is answered once and kept nowhere.
func (t *Tokens) Issue(ctx context.Context, spec Spec, now time.Time) (text string, info Info, err error) {
	if spec.Namespace == "" {
		spec.Namespace = "default"
	}
	if spec.TTL == 0 {
		spec.TTL = DefaultTTL
	}
	if spec.Uses == 0 {
		spec.Uses = DefaultUses
	}
	named := spec.ServiceAccount != "" || spec.Service != ""
	switch {
	case named == spec.Any:
		return "", Info{}, errors.New("a join token is for one service: say which (--service, and --service-account where that has another name), or --any for every one of the namespace")
	case spec.ServiceAccount == "":
		spec.ServiceAccount = spec.Service
	case spec.Service == "":
		spec.Service = spec.ServiceAccount
	}
	for what, name := range map[string]string{"namespace": spec.Namespace, "service account": spec.ServiceAccount, "service": spec.Service} {
		if !isName(name) && (!spec.Any || what == "namespace") {
			return "", Info{}, fmt.Errorf("%s %q: a name has lower-case letters, digits and '-', and at most 63 of them", what, name)
		}
	}
	if spec.TTL < time.Second || spec.TTL > MaxTTL || spec.Uses < 1 || spec.Uses > MaxUses {
		return "", Info{}, fmt.Errorf("a join token lasts 1s to %s and has 1 to %d uses", MaxTTL, MaxUses)
	}
	id, secret := make([]byte, 8), make([]byte, 20)
	rand.Read(id)
	rand.Read(secret)
	hash := sha256.Sum256(secret)
	s := stored{Hash: hash[:], Info: Info{ID: hex.EncodeToString(id), Namespace: spec.Namespace, ServiceAccount: spec.ServiceAccount, Service: spec.Service,
		Expires: now.Add(spec.TTL).UTC().Truncate(time.Second), Uses: spec.Uses}}
	if err := t.put(ctx, s, store.Absent); err != nil {
		return "", Info{}, err
	}
	return jointoken.Token{ID: s.ID, Secret: secret, Root: sha256.Sum256(t.root())}.String(), s.Info, nil
}

// Redeem uses a token once for a workload of a service account that is to serve service, or answers ErrRefused or an error of
// the store.
func (t *Tokens) Redeem(ctx context.Context, text, namespace, serviceAccount, service string, now time.Time) error {
	tok, err := jointoken.Parse(text)
	if err != nil {
		return ErrRefused
	}
	for {
		o, s, err := t.get(ctx, tok.ID)
		if errors.Is(err, store.ErrNotFound) {
			return ErrRefused
		}
		if err != nil {
			return err
		}
		hash := sha256.Sum256(tok.Secret)
		if subtle.ConstantTimeCompare(hash[:], s.Hash) != 1 || !now.Before(s.Expires) || s.Uses < 1 ||
			namespace != s.Namespace || s.ServiceAccount != "" && serviceAccount != s.ServiceAccount || s.Service != "" && service != s.Service {
			return ErrRefused
		}
		s.Uses--
		if err = t.put(ctx, s, store.At(o.Revision)); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// Return gives a use of a token back that nothing came of. It answers store.ErrNotFound where the token is gone.
func (t *Tokens) Return(ctx context.Context, text string) error {
	tok, err := jointoken.Parse(text)
	if err != nil {
		return err
	}
	for {
		o, s, err := t.get(ctx, tok.ID)
		if err != nil {
			return err
		}
		s.Uses = min(s.Uses+1, MaxUses)
		if err = t.put(ctx, s, store.At(o.Revision)); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// List answers the tokens that still let somebody in, and removes the others.
func (t *Tokens) List(ctx context.Context, now time.Time) ([]Info, error) {
	objects, _, err := t.store.List(ctx, kind, "")
	if err != nil {
		return nil, err
	}
	list := []Info{}
	for _, o := range objects {
		var s stored
		if err := json.Unmarshal(o.Value, &s); err == nil && s.Uses > 0 && now.Before(s.Expires) {
			list = append(list, s.Info)
			continue
		}
		if _, err := t.store.Delete(ctx, o.Key, store.At(o.Revision)); err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return list, nil
}

// Revoke ends a token, or answers store.ErrNotFound.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	_, err := t.store.Delete(ctx, store.Key{Kind: kind, Name: id}, store.Any)
	return err
}

func (t *Tokens) get(ctx context.Context, id string) (store.Object, stored, error) {
	var s stored
	o, err := t.store.Get(ctx, store.Key{Kind: kind, Name: id})
	if err == nil {
		err = json.Unmarshal(o.Value, &s)
	}
	return o, s, err
}

func (t *Tokens) put(ctx context.Context, s stored, cond store.If) error {
	value, err := json.Marshal(s)
	if err == nil {
		_, err = t.store.Put(ctx, store.Object{Key: store.Key{Kind: kind, Name: s.ID}, Value: value}, cond)
	}
	return err
}

// isName reports whether s is a DNS label (RFC 1123) in lower case, as namespaces and service accounts are.
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}
