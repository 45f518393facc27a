package model

import (
	"slices"
	"strings"
	"time"
)

// Security is what the proxy of one workload enforces for the sake of others and of itself: who may talk to it and how, and
// whom it may talk to. It is of a service ("reviews.default"), the same for all its workloads; what concerns only some of
// them says so with Labels. Policies are in the order in which they are looked at (docs/design/security.md).
type Security struct {
	Name ServiceName
	// Modes say what connections must prove, the first that fits a port decides; none fits: ModeStrict. The compiler always
	// writes a last one that fits everything.
	Modes []PortMode
	// DenyByDefault: what no policy that allows is about is refused. Otherwise it is allowed.
	DenyByDefault bool
	Policies      []Policy
	Tokens        []TokenIssuer // whose tokens are read and believed
	Authorizers   []Authorizer  // that policies of ActionExternal name
	Egress        Egress
	// TrustedHops is how many proxies in front of published ports are believed in what x-forwarded-for says.
	TrustedHops uint32
}

// MTLSMode is what a connection must prove.
type MTLSMode uint8

// Modes.
const (
	ModeStrict     MTLSMode = iota // mutual TLS with an identity of the mesh, and nothing else
	ModePermissive                 // plaintext too
	ModeDisabled                   // plaintext only
)

// PortMode is the mode of a port.
type PortMode struct {
	Policy string  // "AuthenticationPolicy/default/cart", "MeshConfig/mesh", or "": nothing says, so it is the default
	Labels []Label // that the workload must have; empty: every workload
	Port   uint16  // of the service; 0: every port
	Mode   MTLSMode
}

// Mode answers the mode of a port of a workload with these labels, and the policy that says so.
func (s *Security) Mode(port uint16, labels []Label) PortMode {
	for _, m := range s.Modes {
		if (m.Port == 0 || m.Port == port) && !slices.ContainsFunc(m.Labels, func(l Label) bool { return !slices.Contains(labels, l) }) {
			return m
		}
	}
	return PortMode{}
}

// Action is what a policy does where one of its rules holds.
type Action uint8

// Actions. Those that deny decide first, then those that allow; whom these let pass an Authorizer may still refuse.
const (
	ActionExternal Action = iota // an Authorizer is asked
	ActionDeny
	ActionAllow // and where such a policy is about a port, what none allows is refused
	ActionAudit // decides nothing, is recorded
)

// Policy is a compiled AuthorizationPolicy.
type Policy struct {
	Name       string // "AuthorizationPolicy/default/cart"
	Action     Action
	DryRun     bool     // decides nothing; what it would have decided is recorded
	Labels     []Label  // that the workload must have; empty: every workload
	Ports      []uint16 // of the service; empty: every port
	Authorizer string   // ActionExternal: by name
	// Rules: one must hold. None: nothing holds (an allowing policy without a rule allows nothing).
	Rules []PolicyRule
}

// PolicyRule holds when one of From (none: anybody), one of To (none: anything), every one of When and Expression hold.
type PolicyRule struct {
	Name       string // as written, or "rules[2]"
	From       []PolicySource
	To         []PolicyTarget
	When       []PolicyCondition
	Expression string // CEL; "": none
	// Begins and Ends bound the rule in time, Unix seconds; 0: no bound.
	Begins, Ends int64
}

// PolicySource holds when each of its lists that is not empty has an element that fits, and no element of a Not list fits.
type PolicySource struct {
	Principals, NotPrincipals           []StringMatch // SPIFFE IDs
	Namespaces, NotNamespaces           []StringMatch
	Accounts, NotAccounts               []StringMatch // "namespace/service account"
	TrustDomains, NotTrustDomains       []StringMatch
	IPs, NotIPs                         []string      // CIDR, of the other end of the connection
	RemoteIPs, NotRemoteIPs             []string      // CIDR, of the first client, as far as it is believed
	TokenPrincipals, NotTokenPrincipals []StringMatch // "issuer/subject" of a token
}

// PolicyTarget is read as a PolicySource is. Where a connection is not HTTP, what needs a request does not fit in a rule that
// allows, and is left out of one that denies.
type PolicyTarget struct {
	Hosts, NotHosts             []StringMatch // in lower case, without a port
	Ports, NotPorts             []uint16      // of the service
	Methods, NotMethods         []StringMatch
	Paths, NotPaths             []PolicyPath
	Procedures, NotProcedures   []StringMatch // gRPC: "package.Service/Method"
	ServerNames, NotServerNames []StringMatch // SNI of the program's own TLS
}

// PolicyPath compares a normalized path, without its query.
type PolicyPath struct {
	Template bool // "/a/{id}/b", "{rest...}" as the last element: any number of elements
	Match    StringMatch
}

// ConditionKind is what a condition looks at.
type ConditionKind uint8

// Kinds.
const (
	ConditionHeader ConditionKind = iota
	ConditionQuery
	ConditionCookie
	ConditionClaim // of a token, "a.b" for nested ones; a list fits when one of its elements does
)

// PolicyCondition holds when a value fits one of Values (none: when there is a value), and none fits one of NotValues.
type PolicyCondition struct {
	Kind              ConditionKind
	Name              string
	Values, NotValues []StringMatch
}

// TokenIssuer is who signs JSON Web Tokens that are believed.
type TokenIssuer struct {
	Name      string // "AuthenticationPolicy/default/cart jwt[0]"
	Labels    []Label
	Ports     []uint16
	Issuer    string
	Audiences []string // one must fit; empty: any
	// Keys is a JSON Web Key Set, or "" where KeysURL, KeysFile (on the workload's machine) or, with none of them, OIDC discovery at Issuer
	// says it.
	Keys          string
	KeysURL       string
	KeysFile      string
	Algorithms    []string      // that are accepted; never "none"
	Skew          time.Duration // that clocks may differ by
	From          []TokenPlace  // where tokens are looked for, in order; empty: the Authorization field
	Forward       bool          // the token is passed on to the program
	ClaimHeaders  []ClaimHeader
	RequiredPaths []PolicyPath // requests to these without a token are refused; policies say more
	Required      bool         // every request without a valid token is refused
	Endless       bool         // tokens that never end (without exp) are taken
}

// TokenPlace is where a token may be.
type TokenPlace struct {
	Header, Prefix string // the field's name in lower case, and what precedes the token
	Query, Cookie  string
}

// ClaimHeader tells the program a claim.
type ClaimHeader struct{ Claim, Header string }

// Authorizer is an external authorization service (envoy.service.auth.v3, or HTTP).
type Authorizer struct {
	Name     string
	Backend  PortName
	HTTP     bool          // asked by an HTTP request, otherwise gRPC
	Path     string        // HTTP: put before the request's
	Timeout  time.Duration // of one question
	FailOpen bool          // what cannot be asked is allowed
	// Body is how much of the request's body is sent along, bytes; 0: none.
	Body            uint32
	PartialBody     bool     // a longer body is cut; otherwise it is refused
	RequestHeaders  []string // that are sent; empty: all (gRPC), those of Envoy's HTTP authorizer (HTTP)
	UpstreamHeaders []string // of the answer that reach the program, in the place of those that are there
	AppendHeaders   []string // likewise, HTTP only, beside those that are there
	ClientHeaders   []string // of a refusal that reach the client
	AllowHeaders    []string // of an answer that allows that reach the client; empty: all (gRPC), none (HTTP)
	// Again is how often what it has let in and is still open is asked about again; 0: only when policies change.
	Again time.Duration
}

// EgressMode is what becomes of what is not in the mesh.
type EgressMode uint8

// Modes.
const (
	EgressAny      EgressMode = iota // passed through
	EgressRegistry                   // refused, unless it is a service's or an ExternalService's
)

// Egress is whom the workload may talk to outside of the mesh.
type Egress struct {
	Mode  EgressMode
	Rules []EgressRule // the first that fits decides, then Mode
	// Services are the ExternalServices that the workload may know of; of several with a host the first counts.
	Services []EgressService
}

// EgressService is an ExternalService as its callers know it.
type EgressService struct {
	Name  ServiceName
	Hosts []string // in lower case; "*.example.com" is every name below
	Ports []uint16
	// Original: programs look its hosts up themselves, and what they then ask for must be one of Hosts. Otherwise its hosts
	// have the virtual addresses of Name.
	Original bool
	// Policies of it, which its callers' proxies enforce as a workload's own proxy enforces Security.Policies.
	Policies []Policy
}

// Hosted reports whether a name, in lower case, is one of the hosts of an ExternalService.
func Hosted(hosts []string, name string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool {
		rest, wild := strings.CutPrefix(h, "*")
		return h == name || wild && len(name) > len(rest) && strings.HasSuffix(name, rest)
	})
}

// EgressRule is about some of the workloads, hosts and addresses.
type EgressRule struct {
	Policy    string
	Labels    []Label
	Hosts     []StringMatch // of ExternalServices; by what DNS said or by SNI
	Addresses []string      // CIDR
	Ports     []uint16      // empty: every port
	Deny      bool
}

// Trust is whom the mesh believes: one for all proxies, resource "trust".
type Trust struct {
	// Stage counts what the authority does to its roots; a proxy that has acknowledged a Trust believes all of its Bundles.
	Stage   uint64
	Bundles []TrustBundle
	Revoked []Revocation
	// Renew asks whoever has a certificate that was made before (Unix seconds, by the authority's clock) to get a new one
	// soon; 0: nobody.
	Renew int64
}

// TrustBundle is the roots of a trust domain.
type TrustBundle struct {
	TrustDomain string
	Roots       [][]byte // DER
	// Alias: identities of this trust domain count as the mesh's own (a migration); otherwise it is a federated one, and only
	// policies that name it let it in.
	Alias bool
}

// Revocation takes an identity, or one certificate of it, out of use.
type Revocation struct {
	Identity string // SPIFFE ID, or "" with Serial
	Serial   []byte // of a certificate, an intermediate's too; empty: every certificate of Identity that begins before Before
	Before   int64  // Unix seconds
	Until    int64  // Unix seconds: nothing it is about is valid any more
}
