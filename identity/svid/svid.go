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
	NotBefore   time.Time
	NotAfter    time.Time
}

// Source answers the identity in force. Safe for concurrent use; the answer is never nil once the source has
// been made, and may be past its NotAfter when it could not be renewed.
type Source interface{ Current() *SVID }
