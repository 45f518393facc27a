package handover

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// How long session tickets work, and how often their key changes (as in crypto/tls, which gives no access to keys that
// it makes itself).
const (
	ticketLife   = 7 * 24 * time.Hour
	ticketChange = 24 * time.Hour
	maxKeys      = 16
)

// Tickets is what the keys of session tickets are made from, newest first. It is a value: Renew answers another. Secret.
type Tickets struct{ keys []ticketKey }

type ticketKey struct {
	Secret []byte    `json:"secret"` // 32 bytes
	Made   time.Time `json:"made"`
}

// ParseTickets reads what Bytes wrote; nothing is an empty Tickets and no error.
func ParseTickets(b []byte) (Tickets, error) {
	var keys []ticketKey
	if len(b) == 0 {
		return Tickets{}, nil
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		return Tickets{}, fmt.Errorf("ticket keys: %w", err)
	}
	if len(keys) > maxKeys {
		return Tickets{}, fmt.Errorf("ticket keys: %d are more than %d", len(keys), maxKeys)
	}
	for _, k := range keys {
		if len(k.Secret) != sha256.Size {
			return Tickets{}, errors.New("ticket keys: one does not have 32 bytes")
		}
	}
	return Tickets{keys}, nil
}

// Bytes answers what ParseTickets reads.
func (t Tickets) Bytes() []byte {
	b, err := json.Marshal(t.keys)
	if err != nil {
		return nil // cannot happen: bytes and times
	}
	return b
}

// Renew answers the tickets as they should be now: with a new key if the newest is a day old (or there is none), and
// without those that are older than any ticket may be. changed reports whether that is something else than t. Call it
// at the start and once an hour.
func (t Tickets) Renew(now time.Time) (renewed Tickets, changed bool) {
	var keys []ticketKey
	if len(t.keys) == 0 || now.Sub(t.keys[0].Made) >= ticketChange {
		secret := make([]byte, sha256.Size)
		rand.Read(secret) // never fails
		keys, changed = append(keys, ticketKey{secret, now}), true
	}
	for _, k := range t.keys {
		if now.Sub(k.Made) >= ticketLife+ticketChange || len(keys) == maxKeys {
			changed = true
			continue
		}
		keys = append(keys, k)
	}
	return Tickets{keys}, changed
}

// Keys answers what tls.Config.SetSessionTicketKeys takes, for one TLS context: contexts with different labels (listener
// and chain) do not take each other's tickets. At least one key, unless t is empty.
func (t Tickets) Keys(label string) [][32]byte {
	out := make([][32]byte, 0, len(t.keys))
	for _, k := range t.keys {
		b, err := hkdf.Key(sha256.New, k.Secret, nil, "tulle session tickets: "+label, 32)
		if err != nil {
			continue // cannot happen: 32 bytes of SHA-256 are always there
		}
		out = append(out, [32]byte(b))
	}
	return out
}
