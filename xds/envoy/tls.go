package envoy

import (
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tulle-mesh/tulle/model"
)

func serverTLS(path string, m *tlsv3.DownstreamTlsContext) (*model.ServerTLS, error) {
	c := m.GetCommonTlsContext()
	s := &model.ServerTLS{RequireClient: m.GetRequireClientCertificate().GetValue(), ALPN: c.GetAlpnProtocols(),
		NoTickets: m.GetDisableStatelessSessionResumption()}
	var err error
	if s.Parameters, s.Certificates, s.Validation, err = commonTLS(join(path, "common_tls_context"), c); err != nil {
		return nil, err
	}
	if len(s.Certificates) == 0 {
		return nil, refuse(join(path, "common_tls_context.tls_certificates"), "there is none; a server needs one")
	}
	if s.RequireClient && s.Validation == nil {
		return nil, refuse(join(path, "require_client_certificate"), "is set without a validation_context: every certificate would do")
	}
	return s, nil
}

func clientTLS(path string, m *tlsv3.UpstreamTlsContext) (*model.ClientTLS, error) {
	c := m.GetCommonTlsContext()
	s := &model.ClientTLS{SNI: m.GetSni(), AutoSNI: m.GetAutoHostSni(), AutoSANs: m.GetAutoSniSanValidation(), ALPN: c.GetAlpnProtocols(), MaxSessions: 1}
	if m.GetMaxSessionKeys() != nil {
		s.MaxSessions = m.GetMaxSessionKeys().GetValue()
	}
	var err error
	s.Parameters, s.Certificates, s.Validation, err = commonTLS(join(path, "common_tls_context"), c)
	if err == nil && len(s.Certificates) > 1 {
		err = refuse(join(path, "common_tls_context.tls_certificates"), "%d of them; a client has one", len(s.Certificates))
	}
	return s, err
}

func commonTLS(path string, c *tlsv3.CommonTlsContext) (p model.TLSParameters, certs []model.SecretRef, v *model.Validation, err error) {
	if p, err = tlsParameters(join(path, "tls_params"), c.GetTlsParams()); err != nil {
		return
	}
	for i, m := range c.GetTlsCertificates() {
		var s *model.Secret
		if s, err = certificate(at(join(path, "tls_certificates"), i), m); err != nil {
			return
		}
		certs = append(certs, model.SecretRef{Inline: s})
	}
	for i, m := range c.GetTlsCertificateSdsSecretConfigs() {
		var r model.SecretRef
		if r, err = sds(at(join(path, "tls_certificate_sds_secret_configs"), i), m); err != nil {
			return
		}
		certs = append(certs, r)
	}
	switch t := c.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		v, err = validation(join(path, "validation_context"), t.ValidationContext)
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		v = &model.Validation{}
		v.Roots, err = sds(join(path, "validation_context_sds_secret_config"), t.ValidationContextSdsSecretConfig)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		q := join(path, "combined_validation_context")
		if v, err = validation(join(q, "default_validation_context"), t.CombinedValidationContext.GetDefaultValidationContext()); err != nil {
			return
		}
		v.Roots, err = sds(join(q, "validation_context_sds_secret_config"), t.CombinedValidationContext.GetValidationContextSdsSecretConfig())
	}
	if err == nil && v != nil && len(v.SANs) > 0 && v.Roots == (model.SecretRef{}) && !v.System {
		err = refuse(join(path, "validation_context"), "compares names without trusted_ca: any certificate could have them")
	}
	return
}

func tlsParameters(path string, m *tlsv3.TlsParameters) (model.TLSParameters, error) {
	var p model.TLSParameters
	version := func(v tlsv3.TlsParameters_TlsProtocol, name string) (model.TLSVersion, error) {
		switch v {
		case tlsv3.TlsParameters_TLS_AUTO:
			return model.TLSAuto, nil
		case tlsv3.TlsParameters_TLSv1_2:
			return model.TLS12, nil
		case tlsv3.TlsParameters_TLSv1_3:
			return model.TLS13, nil
		}
		return 0, refuse(join(path, name), "%s %s", v, notRun)
	}
	var err error
	if p.Min, err = version(m.GetTlsMinimumProtocolVersion(), "tls_minimum_protocol_version"); err != nil {
		return p, err
	}
	if p.Max, err = version(m.GetTlsMaximumProtocolVersion(), "tls_maximum_protocol_version"); err != nil {
		return p, err
	}
	p.Curves = m.GetEcdhCurves()
	for _, s := range m.GetCipherSuites() {
		for one := range strings.SplitSeq(strings.Trim(s, "[]"), "|") { // equals stand in brackets; crypto/tls orders for itself
			p.Ciphers = append(p.Ciphers, cipher(one))
		}
	}
	return p, nil
}

// cipher answers the IANA name of a suite that is called as OpenSSL does; other names stay.
func cipher(name string) string {
	kind, rest, ok := strings.Cut(strings.TrimPrefix(name, "ECDHE-"), "-")
	if !ok || !strings.HasPrefix(name, "ECDHE-") || kind != "ECDSA" && kind != "RSA" {
		return name
	}
	to, ok := map[string]string{"AES128-GCM-SHA256": "AES_128_GCM_SHA256", "AES256-GCM-SHA384": "AES_256_GCM_SHA384",
		"CHACHA20-POLY1305": "CHACHA20_POLY1305_SHA256", "AES128-SHA": "AES_128_CBC_SHA", "AES256-SHA": "AES_256_CBC_SHA"}[rest]
	if !ok {
		return name
	}
	return "TLS_ECDHE_" + kind + "_WITH_" + to
}

func certificate(path string, m *tlsv3.TlsCertificate) (*model.Secret, error) {
	s := &model.Secret{WatchDirectory: m.GetWatchedDirectory().GetPath()}
	var err error
	if s.Certificate, err = material(join(path, "certificate_chain"), m.GetCertificateChain()); err != nil {
		return nil, err
	}
	if s.Key, err = material(join(path, "private_key"), m.GetPrivateKey()); err != nil {
		return nil, err
	}
	if s.Certificate.IsZero() || s.Key.IsZero() {
		return nil, refuse(path, "needs certificate_chain and private_key")
	}
	return s, nil
}

func sds(path string, m *tlsv3.SdsSecretConfig) (model.SecretRef, error) {
	if m.GetName() == "" {
		return model.SecretRef{}, refuse(join(path, "name"), "is missing")
	}
	if c := m.GetSdsConfig(); c != nil { // without: a static secret
		if err := byName(join(path, "sds_config"), c); err != nil {
			return model.SecretRef{}, err
		}
	}
	return model.SecretRef{SDS: m.GetName()}, nil
}

func validation(path string, m *tlsv3.CertificateValidationContext) (*model.Validation, error) {
	v := &model.Validation{AllowExpired: m.GetAllowExpiredCertificate(), SPKI: m.GetVerifyCertificateSpki(),
		AcceptUntrusted: m.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED, System: m.GetSystemRootCerts() != nil}
	for _, h := range m.GetVerifyCertificateHash() {
		v.Hashes = append(v.Hashes, strings.ToLower(strings.ReplaceAll(h, ":", "")))
	}
	roots, err := material(join(path, "trusted_ca"), m.GetTrustedCa())
	if err != nil {
		return nil, err
	}
	if !roots.IsZero() {
		v.Roots = model.SecretRef{Inline: &model.Secret{Roots: roots, WatchDirectory: m.GetWatchedDirectory().GetPath()}}
	}
	crl, err := material(join(path, "crl"), m.GetCrl())
	if err != nil {
		return nil, err
	}
	if !crl.IsZero() {
		v.CRL = model.SecretRef{Inline: &model.Secret{CRL: crl}}
	}
	for i, s := range m.GetMatchTypedSubjectAltNames() {
		p := at(join(path, "match_typed_subject_alt_names"), i)
		match, err := stringMatch(join(p, "matcher"), s.GetMatcher())
		if err != nil {
			return nil, err
		}
		kind, ok := map[tlsv3.SubjectAltNameMatcher_SanType]model.SANKind{tlsv3.SubjectAltNameMatcher_DNS: model.SANDNS,
			tlsv3.SubjectAltNameMatcher_URI: model.SANURI, tlsv3.SubjectAltNameMatcher_EMAIL: model.SANEmail, tlsv3.SubjectAltNameMatcher_IP_ADDRESS: model.SANIP}[s.GetSanType()]
		if !ok {
			return nil, refuse(join(p, "san_type"), "%s %s", s.GetSanType(), notRun)
		}
		v.SANs = append(v.SANs, model.SANMatch{Kind: kind, Match: match})
	}
	return v, nil
}

func stringMatch(path string, m *matcherv3.StringMatcher) (model.StringMatch, error) {
	s := model.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.Kind, s.Value = model.StringExact, p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.Kind, s.Value = model.StringPrefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.Kind, s.Value = model.StringSuffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.Kind, s.Value = model.StringContains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		s.Kind, s.Value = model.StringRegex, p.SafeRegex.GetRegex()
		if err := regex(join(path, "safe_regex"), p.SafeRegex); err != nil {
			return s, err
		}
	default:
		return s, refuse(path, "compares with nothing")
	}
	return s, nil
}
