package federate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

// fetch asks a bundle endpoint. Nothing is kept of the connection.
func (k *Keeper) fetch(ctx context.Context, f *follow) ([]byte, error) {
	cfg, err := k.client(f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.spec.Endpoint.URL, nil)
	if err != nil {
		return nil, err
	}
	c := http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it redirects, which is not followed") },
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, v1alpha1.MaxBundle+1))
	if err == nil && len(text) > v1alpha1.MaxBundle {
		err = fmt.Errorf("the bundle has more than %d bytes", v1alpha1.MaxBundle)
	}
	return text, err
}

// client is how the server proves that it is the endpoint.
func (k *Keeper) client(f *follow) (*tls.Config, error) {
	e := f.spec.Endpoint
	if e.Profile == v1alpha1.ProfileSPIFFE {
		id, err := spiffeid.FromString(e.SpiffeID)
		if err != nil {
			return nil, err
		}
		return tlsconfig.TLSClientConfig(k, tlsconfig.AuthorizeID(id)), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile == "" {
		return cfg, nil
	}
	text, err := readFile(e.CAFile)
	if err != nil {
		return nil, err
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate (PEM) in it", e.CAFile)
	}
	return cfg, nil
}

// GetX509BundleForTrustDomain is part of x509bundle.Source: what an endpoint that shows an X.509-SVID is verified with.
func (k *Keeper) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	var roots [][]byte
	k.mu.Lock()
	if f := k.follows[td.Name()]; f != nil {
		roots = f.last.Roots
	}
	k.mu.Unlock()
	if own := k.own(); roots == nil && own != nil {
		for _, b := range own.Bundles {
			if b.TrustDomain == td.Name() {
				roots = b.Roots
			}
		}
	}
	if roots == nil {
		return nil, fmt.Errorf("no bundle of %s is known", td)
	}
	b := x509bundle.New(td)
	for _, der := range roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		b.AddX509Authority(c)
	}
	return b, nil
}

func (k *Keeper) own() *model.Trust {
	if k.cfg.Own == nil {
		return nil
	}
	return k.cfg.Own()
}

// Endpoint serves the mesh's own bundle by the profile https_spiffe, at every path, to whoever asks: roots are no secret. own answers
// it as it is, nil while it is not known, identity what the control plane proves itself with. hint is how often others are to ask.
func Endpoint(own func() *model.Trust, identity svid.Source, hint time.Duration) *http.Server {
	return &http.Server{
		ReadTimeout: fetchTimeout, WriteTimeout: fetchTimeout, IdleTimeout: fetchTimeout, MaxHeaderBytes: 16 << 10,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &identity.Current().Certificate, nil
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				http.Error(w, "only GET is answered here", http.StatusMethodNotAllowed)
				return
			}
			t := own()
			if t == nil {
				http.Error(w, "the control plane is about to start", http.StatusServiceUnavailable)
				return
			}
			text, err := Marshal(t.Bundles[0].TrustDomain, t.Bundles[0].Roots, t.Stage, hint)
			if err != nil {
				http.Error(w, "the bundle cannot be written", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(text) // who asked may have gone
		}),
	}
}
