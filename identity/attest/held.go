package attest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

// held is an identity in the form in which it outlives its process: in another process's memory, never on a disk.
type held struct {
	Key     []byte   // PKCS #8
	Chain   [][]byte // DER, leaf first
	Roots   []byte   // PEM
	Address string   // of the control plane's gRPC port
	Server  string   // SPIFFE ID that it proves there
	Made    int64    // milliseconds of Unix time
	Trust   *model.Trust
}

// Hold answers the identity s of id, private key and all, for a later Resume by the process that replaces this one.
// Whoever has it is the workload: it belongs in memory alone.
func (id *Identity) Hold(s *svid.SVID) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.Certificate.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	h := held{Key: key, Chain: s.Certificate.Certificate, Roots: s.RootsPEM, Address: id.Address, Server: id.Server.String()}
	if !s.Made.IsZero() {
		h.Made = s.Made.UnixMilli()
	}
	if s.Trust != nil {
		h.Trust = s.Trust.Model
	}
	return json.Marshal(h)
}

// ErrEnded is the answer of Resume to an identity that has ended.
var ErrEnded = errors.New("the identity kept from the proxy before has ended")

// Resume goes on with what Hold answered, and asks nobody: the control plane may be away. It is renewed in the
// background as if it had been obtained by Start. It refuses what is not the identity that cfg asks for, and answers
// ErrEnded when Start is the only way.
func Resume(cfg Config, kept []byte) (*Identity, error) {
	if _, err := kind(cfg); err != nil {
		return nil, err
	}
	s, h, err := open(kept)
	if err != nil {
		return nil, fmt.Errorf("attest: the identity kept from the proxy before: %w", err)
	}
	if s.ID.Namespace != cfg.Namespace || s.ID.ServiceAccount != cfg.ServiceAccount {
		return nil, fmt.Errorf("attest: the identity kept is %s, not service account %s in namespace %s", s.ID, cfg.ServiceAccount, cfg.Namespace)
	}
	if !time.Now().Before(s.NotAfter) {
		return nil, ErrEnded
	}
	id := &Identity{Address: h.Address, clock: clockOf(cfg), log: cfg.Log}
	if id.Server, err = spiffe.ParseID(h.Server); err != nil {
		return nil, fmt.Errorf("attest: the identity kept from the proxy before: %w", err)
	}
	id.Rotator = svid.Resume(s, svid.Config{Fetch: id.next(cfg), Clock: id.clock, Log: cfg.Log})
	return id, nil
}

func open(kept []byte) (*svid.SVID, held, error) {
	var h held
	if err := json.Unmarshal(kept, &h); err != nil {
		return nil, h, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(h.Key)
	if err != nil {
		return nil, h, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, h, errors.New("its key is not ECDSA")
	}
	var roots [][]byte
	for block, rest := pem.Decode(h.Roots); block != nil; block, rest = pem.Decode(rest) {
		roots = append(roots, block.Bytes)
	}
	s, err := svid.New(key, h.Chain, roots)
	if err != nil {
		return nil, h, err
	}
	if h.Made > 0 {
		s.Made = time.UnixMilli(h.Made)
	}
	if h.Trust != nil {
		t, err := svid.NewTrust(s.ID.TrustDomain, h.Trust)
		if err != nil {
			return nil, h, err
		}
		s = s.Believing(t)
	}
	return s, h, nil
}
