// Package svid holds the identity of one process: an X.509-SVID with its private key, in memory only, renewed
// before it ends. A holder reads it through Source, whose Current is one atomic load, so that it is safe on
// every loop and in every handshake. Nothing here writes a key anywhere. Start reading at SVID, then Rotator.
package svid

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// SVID is one identity, with what it takes to prove it and to verify those of others. It is immutable.
type SVID struct {
	ID          spiffe.ID
	Certificate tls.Certificate // leaf, intermediates and key; Certificate.Leaf is set
	Roots       *x509.CertPool  // of the trust domain
	RootsPEM    []byte          // the same roots, for whoever hands them on
	Trust       *Trust          // whom the mesh believes; nil: Roots, and nobody is revoked
	Refused     error           // why the control plane takes this certificate for no proof; nil: it has not said so
	Made        time.Time       // by the authority's clock; zero: not said, then NotBefore counts
	NotBefore   time.Time
	NotAfter    time.Time
}

// made answers when s began to be used.
func (s *SVID) made() time.Time {
	if s.Made.IsZero() {
		return s.NotBefore
	}
	return s.Made
}

// Life answers for how long s was made.
func (s *SVID) Life() time.Duration { return s.NotAfter.Sub(s.made()) }

// Source answers the identity in force. Safe for concurrent use; the answer is never nil once the source has
// been made, and may be past its NotAfter when it could not be renewed.
type Source interface{ Current() *SVID }

// Timed is a Source that knows the mesh's time.
type Timed interface{ Now() time.Time }

// now answers the time by which src's peers are verified.
func now(src Source) time.Time {
	if t, ok := src.(Timed); ok {
		return t.Now()
	}
	return time.Now()
}
