package httpapi

import (
	"encoding/pem"
	"errors"
	"net/http"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/trust"
)

// RevocationRequest names what is to be revoked, or restored: a SPIFFE ID, or the serial number of a certificate.
type RevocationRequest struct {
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"`
}

// Revoked is a revocation, with the workloads that show what it is about; where there are none, with the names that come near to it.
type Revoked struct {
	trust.Revocation
	Workloads []string `json:"workloads,omitempty"`
	Near      []string `json:"near,omitempty"`
}

// trusted answers 503 where nothing keeps whom the mesh believes.
func (a *API) trusted(f func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		if a.cfg.Trust == nil {
			return nil, missing("whom the mesh believes")
		}
		return f(r)
	}
}

func (a *API) serveCertificates(*http.Request) (any, error) { return a.cfg.Trust.Report(), nil }

// serveBundle answers the roots of the mesh's own trust domain in SPIFFE's form, for who believes them elsewhere.
func (a *API) serveBundle(*http.Request) (any, error) {
	t := a.cfg.Trust.Model()
	own := t.Bundles[0]
	text, err := federate.Marshal(own.TrustDomain, own.Roots, t.Stage, 0)
	if err != nil {
		return nil, err
	}
	b := Bundle{TrustDomain: own.TrustDomain, Bundle: text}
	for _, der := range own.Roots {
		b.PEM += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b, nil
}

func (a *API) serveRotate(r *http.Request) (any, error) {
	var req trust.Rotate
	if err := read(r, &req); err != nil {
		return nil, err
	}
	err := a.cfg.Trust.Rotate(req)
	for _, e := range []error{ca.ErrUnderWay, ca.ErrNoneToDo, ca.ErrNoRootKey, ca.ErrNotOurs} {
		if errors.Is(err, e) {
			return nil, &Error{Status: http.StatusConflict, Message: err.Error()}
		}
	}
	if err != nil {
		return nil, err
	}
	return a.cfg.Trust.Report(), nil
}

func (a *API) serveRevoked(*http.Request) (any, error) {
	list := a.cfg.Trust.Revoked()
	if list == nil {
		list = []trust.Revocation{}
	}
	return list, nil
}

func (a *API) serveRevocation(r *http.Request) (any, error) {
	var req RevocationRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	done, err := a.cfg.Trust.Revoke(r.Context(), req.What, req.Reason)
	if errors.Is(err, trust.ErrInvalid) {
		return nil, bad("%s", err)
	}
	out := Revoked{Revocation: done}
	out.Workloads, out.Near = a.cfg.Trust.Shows(done)
	return out, err
}

func (a *API) serveRestore(r *http.Request) (any, error) {
	var req RevocationRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	done, err := a.cfg.Trust.Restore(r.Context(), req.What)
	if errors.Is(err, trust.ErrInvalid) {
		return nil, bad("%s", err)
	}
	return done, err
}
