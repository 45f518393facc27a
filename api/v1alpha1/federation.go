package v1alpha1

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Federation is another trust domain whose SPIFFE identities the mesh believes. They are let in only where an AuthorizationPolicy that
// allows names their trust domain, or them: principals that begin with spiffe://<trust domain>/, or the trust domain as it is.
// Bundle or BundleFile, or Endpoint, or one of the first two for the time until Endpoint has answered.
type Federation struct {
	// TrustDomain whose identities the bundle vouches for, and no other's.
	TrustDomain string `json:"trustDomain"`
	// Bundle is the roots, as PEM or as a SPIFFE bundle (JSON).
	Bundle string `json:"bundle,omitempty"`
	// BundleFile is a file with the same on the control plane's machine. It is read again when it changes.
	BundleFile string `json:"bundleFile,omitempty"`
	// Endpoint is where the bundle is fetched again and again.
	Endpoint *BundleEndpoint `json:"endpoint,omitempty"`
}

// BundleEndpoint is a SPIFFE bundle endpoint (SPIFFE Federation, section 5).
type BundleEndpoint struct {
	// URL is https://...; redirects are not followed.
	URL string `json:"url"`
	// Profile is https_web (the server has a certificate for its name) or https_spiffe (it has an X.509-SVID). It has no default.
	Profile string `json:"profile"`
	// SpiffeID is who the server is, with https_spiffe. Its trust domain's bundle has to be known: write Bundle or BundleFile too.
	SpiffeID string `json:"spiffeID,omitempty"`
	// CAFile, with https_web, has the roots (PEM, on the control plane's machine) that the server's certificate is verified with.
	// Default: those of the machine.
	CAFile string `json:"caFile,omitempty"`
}

// Profiles of BundleEndpoint.
const (
	ProfileWeb    = "https_web"
	ProfileSPIFFE = "https_spiffe"
)

// Bounds of what a mesh believes besides its own: every proxy holds all of it.
const (
	MaxFederations = 32
	MaxAliases     = 16
	MaxBundle      = 256 << 10 // bytes of one
)

func isTrustDomain(d string) bool {
	return d != "" && len(d) <= 255 && strings.Trim(d, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == ""
}

// believed checks what the mesh believes besides its own trust domain.
func (c *check) believed(s *MeshConfigSpec) {
	known := map[string]string{s.TrustDomain: "is the mesh's own"}
	if len(s.TrustDomainAliases) > MaxAliases {
		c.fail("spec.trustDomainAliases", "there are %d: at most %d", len(s.TrustDomainAliases), MaxAliases)
	}
	for i, d := range s.TrustDomainAliases {
		at := fmt.Sprintf("spec.trustDomainAliases[%d]", i)
		if !isTrustDomain(d) {
			c.fail(at, "%q is not a trust domain: at most 255 of a-z, 0-9, '.', '-' and '_'", d)
		} else if why := known[d]; why != "" {
			c.fail(at, "%s %s already", d, why)
		}
		known[d] = "is an alias"
	}
	if len(s.Federation) > MaxFederations {
		c.fail("spec.federation", "there are %d: at most %d", len(s.Federation), MaxFederations)
	}
	for i := range s.Federation {
		f, at := &s.Federation[i], fmt.Sprintf("spec.federation[%d]", i)
		if !isTrustDomain(f.TrustDomain) {
			c.fail(at+".trustDomain", "%q is not a trust domain: at most 255 of a-z, 0-9, '.', '-' and '_'", f.TrustDomain)
		} else if why := known[f.TrustDomain]; why != "" {
			c.fail(at+".trustDomain", "%s %s: its identities are the mesh's own", f.TrustDomain, why)
		}
		known[f.TrustDomain] = "is federated"
		c.federation(at, f)
	}
}

// bundleLike reports whether a text may be a bundle; the control plane reads it.
func bundleLike(s string) bool {
	s = strings.TrimSpace(s)
	return strings.HasPrefix(s, "-----BEGIN CERTIFICATE-----") || strings.HasPrefix(s, "{") && json.Valid([]byte(s))
}

func (c *check) federation(at string, f *Federation) {
	switch {
	case f.Bundle == "" && f.BundleFile == "" && f.Endpoint == nil:
		c.fail(at, "says nothing of the roots: write bundle, bundleFile or endpoint")
	case f.Bundle != "" && f.BundleFile != "":
		c.fail(at+".bundleFile", "is written beside bundle: write one of them")
	case len(f.Bundle) > MaxBundle:
		c.fail(at+".bundle", "has %d bytes: at most %d", len(f.Bundle), MaxBundle)
	case f.Bundle != "" && !bundleLike(f.Bundle):
		c.fail(at+".bundle", "is neither certificates (PEM) nor a SPIFFE bundle (JSON)")
	case f.BundleFile != "" && !strings.HasPrefix(f.BundleFile, "/"):
		c.fail(at+".bundleFile", "%q is not an absolute path", f.BundleFile)
	}
	e := f.Endpoint
	if e == nil {
		return
	}
	at += ".endpoint"
	if rest, ok := strings.CutPrefix(e.URL, "https://"); !ok || rest == "" || rest[0] == '/' || strings.ContainsAny(e.URL, " @#") || len(e.URL) > 2048 {
		c.fail(at+".url", "%q is not an address such as https://mesh.example:8443/bundle, without user and fragment", e.URL)
	}
	switch e.Profile {
	case ProfileWeb:
		if e.SpiffeID != "" {
			c.fail(at+".spiffeID", "means nothing with https_web, where the server proves its name")
		}
		if e.CAFile != "" && !strings.HasPrefix(e.CAFile, "/") {
			c.fail(at+".caFile", "%q is not an absolute path", e.CAFile)
		}
	case ProfileSPIFFE:
		domain, path, _ := strings.Cut(strings.TrimPrefix(e.SpiffeID, "spiffe://"), "/")
		switch {
		case !strings.HasPrefix(e.SpiffeID, "spiffe://") || !isTrustDomain(domain) || path == "" || len(e.SpiffeID) > 2048:
			c.fail(at+".spiffeID", "%q is not a SPIFFE ID such as spiffe://mesh.example/ns/tulle-system/sa/control", e.SpiffeID)
		case domain == f.TrustDomain && f.Bundle == "" && f.BundleFile == "":
			c.fail(at, "cannot be verified: with https_spiffe the first bundle is written in bundle or bundleFile ('tulle cert bundle' prints one)")
		}
		if e.CAFile != "" {
			c.fail(at+".caFile", "means nothing with https_spiffe, where the bundle itself verifies the server")
		}
	default:
		c.fail(at+".profile", "%q is not a profile: write https_web or https_spiffe", e.Profile)
	}
}
