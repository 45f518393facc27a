package mtls

import (
	"crypto/fips140"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Curves by their names, in the order that crypto/tls prefers; fips says which FIPS 140-3 allows.
var curves = [...]struct {
	name string
	id   tls.CurveID
	fips bool
}{
	{"X25519MLKEM768", tls.X25519MLKEM768, true},
	{"X25519", tls.X25519, false},
	{"P-256", tls.CurveP256, true},
	{"P-384", tls.CurveP384, true},
	{"P-521", tls.CurveP521, true},
}

// FIPS reports whether the process runs in FIPS 140-3 mode (GODEBUG=fips140=on). crypto/tls then uses approved
// algorithms only.
func FIPS() bool { return fips140.Enabled() }

// parameters answers a configuration with what both sides have in common.
func parameters(p *model.TLSParameters) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	if p.Min == model.TLS13 {
		cfg.MinVersion = tls.VersionTLS13
	}
	if p.Max == model.TLS12 {
		cfg.MaxVersion = tls.VersionTLS12
	}
	if cfg.MinVersion > cfg.MaxVersion {
		return nil, fmt.Errorf("TLS: the lowest version is above the highest")
	}
	for _, name := range p.Ciphers {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("TLS: cipher suite %q is not run by Tulle; it runs %s", name, cipherNames())
		}
		cfg.CipherSuites = append(cfg.CipherSuites, tls.CipherSuites()[i].ID)
	}
	for _, name := range p.Curves {
		i := 0
		for i < len(curves) && curves[i].name != name {
			i++
		}
		if i == len(curves) {
			return nil, fmt.Errorf("TLS: key exchange %q is not run by Tulle; it runs X25519MLKEM768, X25519, P-256, P-384 and P-521", name)
		}
		if curves[i].fips || !FIPS() {
			cfg.CurvePreferences = append(cfg.CurvePreferences, curves[i].id)
		}
	}
	if len(p.Curves) > 0 && len(cfg.CurvePreferences) == 0 {
		return nil, fmt.Errorf("TLS: none of the key exchanges %s is allowed by FIPS 140-3, which is on; add P-256", strings.Join(p.Curves, ", "))
	}
	return cfg, nil
}

// cipherNames lists the suites of TLS 1.2; those of 1.3 cannot be chosen.
func cipherNames() string {
	var names []string
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}
