package v1alpha1

// AuthenticationPolicy says what whoever calls the workloads must prove: connections (mtls) and requests (jwt). Their own
// proxies enforce it. Of several policies the most specific decides: about a port, then with a selector, on a Service, on a
// namespace, on the mesh; then the older one.
type AuthenticationPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       AuthenticationPolicySpec `json:"spec,omitempty"`
	Status     SecurityPolicyStatus     `json:"status,omitempty"`
}

// AuthenticationPolicySpec is what a policy is about and what it asks for.
type AuthenticationPolicySpec struct {
	SecurityTargets `json:",inline"`
	// MTLS is what connections from outside of the mesh (--publish) must prove. Between proxies there is always mutual TLS.
	MTLS *AuthenticationMTLS `json:"mtls,omitempty"`
	// JWT are the issuers whose tokens are believed. A request with a token that is not valid is refused; one without a token is
	// only where that is required, here or by an AuthorizationPolicy. Where one is required, or a rule looks at it, what is open
	// ends within a second after its token has expired or is not believed any more.
	JWT []JWTIssuer `json:"jwt,omitempty"`
}

// AuthenticationMTLS is the mode of ports.
type AuthenticationMTLS struct {
	// Mode is Strict (mutual TLS with an identity of the mesh and nothing else), Permissive (plaintext too) or Disabled
	// (plaintext only). None: Ports say.
	Mode string `json:"mode,omitempty"`
	// Ports that have another mode.
	Ports []AuthenticationPort `json:"ports,omitempty"`
}

// AuthenticationPort is the mode of one port.
type AuthenticationPort struct {
	// Port is the name or the number of a port of the Service.
	Port string `json:"port"`
	// Mode is Strict, Permissive or Disabled.
	Mode string `json:"mode"`
}

// JWTIssuer is who signs JSON Web Tokens that are believed, and how they are checked.
type JWTIssuer struct {
	// Issuer is the claim iss of its tokens.
	Issuer string `json:"issuer"`
	// Audiences: one of them must be among the claim aud. None: any will do.
	Audiences []string `json:"audiences,omitempty"`
	// JWKS is a JSON Web Key Set with public keys.
	JWKS string `json:"jwks,omitempty"`
	// JWKSURL is where the key set is: https, or http on the proxy's own machine. Without jwks, jwksURL and jwksFile the issuer says
	// where it is (OpenID Connect Discovery 1.0, below /.well-known/openid-configuration).
	JWKSURL string `json:"jwksURL,omitempty"`
	// JWKSFile is the absolute path of a file with the key set on the machines of the workloads, which their proxies read again every 15 s
	// and when a token names a key that they do not know.
	JWKSFile string `json:"jwksFile,omitempty"`
	// Algorithms of signatures that are taken. Default: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA;
	// there are no others.
	Algorithms []string `json:"algorithms,omitempty"`
	// AllowEndless takes tokens without the claim exp, which never end: who has one has it for ever. Default false: they are
	// refused.
	AllowEndless bool `json:"allowEndless,omitempty"`
	// ClockSkew that is forgiven, 0s to 10m. Default 60s.
	ClockSkew Duration `json:"clockSkew,omitempty"`
	// From are the places where a token may be, in order. Default: the header Authorization, behind "Bearer ".
	From []JWTPlace `json:"from,omitempty"`
	// Forward passes the token on to the program. Default false: it is taken out, as what is only for the proxy.
	Forward bool `json:"forward,omitempty"`
	// ClaimHeaders tell the program claims of a valid token. Such fields of the client's own are taken out.
	ClaimHeaders []JWTClaimHeader `json:"claimHeaders,omitempty"`
	// Required refuses every request without a valid token.
	Required bool `json:"required,omitempty"`
	// RequiredPaths refuses requests to these paths without a valid token; written as the paths of an AuthorizationPolicy.
	RequiredPaths []string `json:"requiredPaths,omitempty"`
}

// JWTPlace is where a token may be; exactly one of Header, Query and Cookie is given.
type JWTPlace struct {
	// Header of the request.
	Header string `json:"header,omitempty"`
	// Prefix that stands before the token in Header, in any case: "Bearer ".
	Prefix string `json:"prefix,omitempty"`
	// Query is a parameter of the query.
	Query string `json:"query,omitempty"`
	// Cookie of the request.
	Cookie string `json:"cookie,omitempty"`
}

// JWTClaimHeader tells the program a claim.
type JWTClaimHeader struct {
	// Claim by its name; a.b is b of the object a. A list is told with commas.
	Claim string `json:"claim"`
	// Header that tells it.
	Header string `json:"header"`
}

// Modes of AuthenticationMTLS.
const (
	ModeStrict     = "Strict"
	ModePermissive = "Permissive"
	ModeDisabled   = "Disabled"
)

// DefaultClockSkew of JWTIssuer.
const DefaultClockSkew Duration = "60s"
