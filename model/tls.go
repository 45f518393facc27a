package model

// TLSVersion is a version of TLS.
type TLSVersion uint8

// Versions. TLSAuto is 1.2 as the lowest of a client, 1.2 as the lowest of a server and 1.3 as the highest: Envoy's.
const (
	TLSAuto TLSVersion = iota
	TLS12
	TLS13
)

// TLSParameters of either side; empty lists are the defaults of crypto/tls, X25519MLKEM768 first.
type TLSParameters struct {
	Min, Max TLSVersion
	Ciphers  []string // TLS 1.2 only, IANA names
	Curves   []string // "X25519MLKEM768", "X25519", "P-256", "P-384", "P-521"
}

// ServerTLS is how a chain proves who it is.
type ServerTLS struct {
	Parameters    TLSParameters
	Certificates  []SecretRef // at least one; the one that fits the client's SNI and algorithms is used, else the first
	Validation    *Validation // nil: clients are not asked for certificates
	RequireClient bool
	ALPN          []string
	NoTickets     bool // disable_stateless_session_resumption
}

// ClientTLS is how a cluster's connections prove who they are, and whom they accept.
type ClientTLS struct {
	Parameters   TLSParameters
	SNI          string
	AutoSNI      bool        // the request's host instead of SNI
	Certificates []SecretRef // at most one
	Validation   *Validation // nil: the server is not verified at all (Envoy's default)
	AutoSANs     bool        // the certificate must name the request's host
	ALPN         []string
	MaxSessions  uint32 // resumable sessions kept per context; 0: none
}

// SecretRef is a secret given in place, or the name that SDS knows it by. Exactly one is set.
type SecretRef struct {
	Inline *Secret
	SDS    string
}

// Validation is what a peer's certificate must hold to.
type Validation struct {
	Roots           SecretRef // PEM; neither in place nor SDS: the system's roots with System
	System          bool
	SANs            []SANMatch // one must match; empty: the chain is enough
	AllowExpired    bool
	AcceptUntrusted bool     // ACCEPT_UNTRUSTED: a chain that does not verify is accepted, and not proven
	Hashes          []string // SHA-256 of the certificate, hex; one of Hashes and SPKI must match when any is given
	SPKI            []string // base64 SHA-256 of the public key
	CRL             SecretRef
}

// SANKind is a kind of subject alternative name.
type SANKind uint8

// Kinds.
const (
	SANAny SANKind = iota
	SANDNS
	SANURI
	SANEmail
	SANIP
)

// SANMatch compares one subject alternative name.
type SANMatch struct {
	Kind  SANKind
	Match StringMatch
}

// StringMatchKind says how a string is compared.
type StringMatchKind uint8

// Kinds. Regex is RE2, anchored at both ends.
const (
	StringExact StringMatchKind = iota
	StringPrefix
	StringSuffix
	StringContains
	StringRegex
)

// StringMatch compares a string.
type StringMatch struct {
	Kind       StringMatchKind
	Value      string
	IgnoreCase bool
}

// Secret is key material. Bytes or a file for each part; files are read when the secret is used and again when they
// change. It must never be logged or dumped.
type Secret struct {
	Name        string   // "" in place
	Certificate Material // PEM chain, leaf first
	Key         Material // PEM
	Roots       Material // PEM; of a validation context
	CRL         Material // PEM
	// WatchDirectory: files are read again when something in it is moved (Kubernetes' ..data). "": their own folders.
	WatchDirectory string
}

// Material is bytes, or the file that holds them.
type Material struct {
	Bytes []byte
	File  string
}

// IsZero reports whether there is nothing.
func (m Material) IsZero() bool { return len(m.Bytes) == 0 && m.File == "" }
