package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/token"
)

// maxRedirects of one fetch.
const maxRedirects = 3

// Fetch answers the key set of an issuer: from a file, from its address, or from where the issuer's OpenID configuration says it is (OpenID Connect
// Discovery 1.0 sections 4 and 4.3). Nothing is fetched that somebody on the way could exchange, nor more than token.MaxKeySet.
func Fetch(ctx context.Context, m *model.TokenIssuer) ([]byte, error) {
	if m.KeysFile != "" {
		return read(m.KeysFile)
	}
	// A client for each fetch keeps no connection, and nothing to close, between two of them.
	client := &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("redirects too often")
			}
			return safe(r.URL)
		},
	}
	at := m.KeysURL
	if at == "" {
		text, err := get(ctx, client, strings.TrimSuffix(m.Issuer, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, err
		}
		var said struct {
			Issuer string `json:"issuer"`
			Keys   string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(text, &said); err != nil {
			return nil, fmt.Errorf("the OpenID configuration of %s is none: %w", m.Issuer, err)
		}
		if said.Issuer != m.Issuer {
			return nil, fmt.Errorf("the OpenID configuration of %s says that it is of %q: write the issuer as it says", m.Issuer, said.Issuer)
		}
		at = said.Keys
	}
	return get(ctx, client, at)
}

// read answers what is in a file; what is no plain file could keep who reads it waiting.
func read(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, token.MaxKeySet+1))
	if err == nil && len(text) > token.MaxKeySet {
		err = fmt.Errorf("%s has more than %d bytes", name, token.MaxKeySet)
	}
	return text, err
}

func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	if err := safe(u); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", at, resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, token.MaxKeySet+1))
	if err == nil && len(text) > token.MaxKeySet {
		err = fmt.Errorf("%s answers more than %d bytes", at, token.MaxKeySet)
	}
	return text, err
}

// safe reports whether nobody on the way can exchange what is there.
func safe(u *url.URL) error {
	if u.Scheme == "https" && u.Host != "" {
		return nil
	}
	a, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && a.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s: %w", u.Redacted(), errNotSafe)
}
