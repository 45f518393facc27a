package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of key sets.
const (
	MaxKeySet = 1 << 20 // bytes of a key set that is fetched
	maxKeys   = 64      // that are kept
	maxTries  = 8       // keys that are tried for a token that does not say which
	minRSA    = 2048    // bits (RFC 7518 section 3.3)
)

// algorithms are those that anything is ever verified with.
func algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// Keys are the public keys of an issuer.
type Keys struct{ list []Key }

// Key is one of them.
type Key struct {
	id, algorithm string // "": any
	public        any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// Len answers how many there are.
func (k *Keys) Len() int { return len(k.list) }

// ParseKeys reads a JSON Web Key Set (RFC 7517). Keys that are not for signatures, that are secret or too weak, or that are of kinds
// that are not known here are left out; it is an error when none is left.
func ParseKeys(text []byte) (*Keys, error) {
	if len(text) > MaxKeySet {
		return nil, fmt.Errorf("the key set has %d bytes: at most %d are read", len(text), MaxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("the key set is not one (RFC 7517): %w", err)
	}
	out := &Keys{}
	for _, raw := range set.Keys {
		var one jose.JSONWebKey
		var more struct {
			Operations []string `json:"key_ops"`
		}
		if json.Unmarshal(raw, &one) != nil || json.Unmarshal(raw, &more) != nil || !one.Valid() || !one.IsPublic() {
			continue
		}
		if one.Use != "" && one.Use != "sig" || len(more.Operations) > 0 && !slices.Contains(more.Operations, "verify") {
			continue
		}
		if r, ok := one.Key.(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			continue
		}
		if len(out.list) == maxKeys {
			break
		}
		out.list = append(out.list, Key{id: one.KeyID, algorithm: one.Algorithm, public: one.Key})
	}
	if len(out.list) == 0 {
		return nil, errors.New("the key set has no public key that signs: it needs RSA of 2048 bits, EC or Ed25519")
	}
	return out, nil
}

// fits reports whether the key is of the kind that an algorithm works with.
func (k *Key) fits(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return algorithm[0] == 'R' || algorithm[0] == 'P'
	case *ecdsa.PublicKey:
		return algorithm == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[p.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// same reports whether both have the same public key.
func (k *Key) same(o *Key) bool {
	p, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && p.Equal(o.public)
}

// fitting answers the keys that may have signed a token.
func (k *Keys) fitting(t *Token) iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		tried := 0
		for i := range k.list {
			one := &k.list[i]
			if t.KeyID != "" && one.id != "" && one.id != t.KeyID || !one.fits(t.Algorithm) {
				continue
			}
			if tried++; tried > maxTries || !yield(one) {
				return
			}
		}
	}
}

// Still reports whether Verify with these keys would take a token that by, perhaps of another set, has verified. It costs no signature.
func (k *Keys) Still(t *Token, by *Key) bool {
	for one := range k.fitting(t) {
		if one.same(by) {
			return true
		}
	}
	return false
}

// Within reports whether all of these keys are among others: those verify whatever k does.
func (k *Keys) Within(others *Keys) bool {
	for i := range k.list {
		one := &k.list[i]
		if !slices.ContainsFunc(others.list, func(o Key) bool { return o.id == one.id && o.algorithm == one.algorithm && o.same(one) }) {
			return false
		}
	}
	return true
}

// Verify answers which of the keys has signed the token by one of the accepted algorithms. Errors are ErrAlgorithm, ErrSignature
// and ErrNoKey; after the last a newer set may have the key.
func (t *Token) Verify(k *Keys, accepted []string) (*Key, error) {
	if !slices.Contains(accepted, t.Algorithm) || !slices.Contains(algorithms(), t.Algorithm) {
		return nil, ErrAlgorithm
	}
	sig, err := jose.ParseSignedCompact(t.raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(t.Algorithm)})
	if err != nil {
		return nil, ErrMalformed
	}
	tried := 0
	for one := range k.fitting(t) {
		tried++
		if _, err := sig.Verify(one.public); err == nil {
			return one, nil
		}
	}
	if tried == 0 || t.KeyID == "" {
		return nil, ErrNoKey
	}
	return nil, ErrSignature
}
