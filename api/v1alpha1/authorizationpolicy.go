package v1alpha1

// AuthorizationPolicy says who may do what with the workloads it is about. Their own proxies enforce it, on connections and
// requests, new and open ones. Those that deny are looked at first, External ones last; where a policy that allows is about
// a port, what none of them allows is refused. So "spec: {}" refuses everything in its namespace that nothing else allows.
type AuthorizationPolicy struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       AuthorizationPolicySpec `json:"spec,omitempty"`
	Status     SecurityPolicyStatus    `json:"status,omitempty"`
}

// AuthorizationPolicySpec is what a policy is about and its rules.
type AuthorizationPolicySpec struct {
	SecurityTargets `json:",inline"`
	// Action is Allow, Deny, Audit (decides nothing and is recorded) or External. Default Allow.
	Action string `json:"action,omitempty"`
	// DryRun: the policy decides nothing; what it would have decided is recorded.
	DryRun bool `json:"dryRun,omitempty"`
	// External says who is asked, for Action External.
	External *ExternalAuthorizer `json:"external,omitempty"`
	// Rules: one of them must hold for the policy to act. None: it never does, and a policy that allows then allows nothing.
	Rules []AuthorizationRule `json:"rules,omitempty"`
}

// SecurityTargets is what a policy about security is about. Without TargetRefs: every Service of the namespace, or, in the
// namespace tulle-system, every Service of the mesh.
type SecurityTargets struct {
	// TargetRefs are at most 16 Services in the policy's namespace; sectionName is the name or number of a port.
	TargetRefs []PolicyTarget `json:"targetRefs,omitempty"`
	// Selector: labels that a workload must have. None: every workload of the Services.
	Selector map[string]string `json:"selector,omitempty"`
}

// AuthorizationRule holds when one of From, one of To, each of When and Expression hold; what is not given holds always.
type AuthorizationRule struct {
	// Name is said in logs and explanations. Default rules[i].
	Name string `json:"name,omitempty"`
	// From is who asks; none: anybody.
	From []AuthorizationSource `json:"from,omitempty"`
	// To is what is asked for; none: anything.
	To []AuthorizationTarget `json:"to,omitempty"`
	// When is what else must hold.
	When []AuthorizationCondition `json:"when,omitempty"`
	// Expression is a condition in CEL over what is known of the request (docs/reference/expressions.md).
	Expression string `json:"expression,omitempty"`
	// NotBefore is when the rule begins to hold (RFC 3339), also for what is open. Default: at once.
	NotBefore string `json:"notBefore,omitempty"`
	// NotAfter is when it holds no more: what is open only by it ends within a second. Default: never.
	NotAfter string `json:"notAfter,omitempty"`
}

// AuthorizationSource is who asks. Each list that is given must have an entry that fits, and no entry of a list that begins
// with "not" may fit. Texts may begin or end with *, for any text there, or begin with ~, for an RE2 expression; * alone is
// any text but none.
type AuthorizationSource struct {
	// Principals are SPIFFE IDs: spiffe://tulle.local/ns/default/sa/cart.
	Principals []string `json:"principals,omitempty"`
	// NotPrincipals: none of these may fit.
	NotPrincipals []string `json:"notPrincipals,omitempty"`
	// Namespaces of the caller.
	Namespaces []string `json:"namespaces,omitempty"`
	// NotNamespaces: none of these may fit.
	NotNamespaces []string `json:"notNamespaces,omitempty"`
	// ServiceAccounts: "cart" is of the policy's own namespace, "shop/cart" of another one.
	ServiceAccounts []string `json:"serviceAccounts,omitempty"`
	// NotServiceAccounts: none of these may fit.
	NotServiceAccounts []string `json:"notServiceAccounts,omitempty"`
	// TrustDomains of the caller: tulle.local.
	TrustDomains []string `json:"trustDomains,omitempty"`
	// NotTrustDomains: none of these may fit.
	NotTrustDomains []string `json:"notTrustDomains,omitempty"`
	// IPBlocks are addresses, or prefixes of them, of the other end of the connection.
	IPBlocks []string `json:"ipBlocks,omitempty"`
	// NotIPBlocks: none of these may fit.
	NotIPBlocks []string `json:"notIPBlocks,omitempty"`
	// RemoteIPBlocks are those of the first client, as far as it is believed.
	RemoteIPBlocks []string `json:"remoteIPBlocks,omitempty"`
	// NotRemoteIPBlocks: none of these may fit.
	NotRemoteIPBlocks []string `json:"notRemoteIPBlocks,omitempty"`
	// RequestPrincipals are "issuer/subject" of a verified token.
	RequestPrincipals []string `json:"requestPrincipals,omitempty"`
	// NotRequestPrincipals: none of these may fit.
	NotRequestPrincipals []string `json:"notRequestPrincipals,omitempty"`
}

// AuthorizationTarget is what is asked for, read as AuthorizationSource is.
type AuthorizationTarget struct {
	// Hosts that are asked for, in any case, without a port.
	Hosts []string `json:"hosts,omitempty"`
	// NotHosts: none of these may fit.
	NotHosts []string `json:"notHosts,omitempty"`
	// Ports are names or numbers of the Service's ports.
	Ports []string `json:"ports,omitempty"`
	// NotPorts: none of these may fit. One that no Service of the policy has allows nothing in a policy that allows.
	NotPorts []string `json:"notPorts,omitempty"`
	// Methods: GET.
	Methods []string `json:"methods,omitempty"`
	// NotMethods: none of these may fit.
	NotMethods []string `json:"notMethods,omitempty"`
	// Paths may also be templates: /a/{id}/b, /files/{rest...}.
	Paths []string `json:"paths,omitempty"`
	// NotPaths: none of these may fit.
	NotPaths []string `json:"notPaths,omitempty"`
	// Procedures of gRPC: package.Service/Method.
	Procedures []string `json:"procedures,omitempty"`
	// NotProcedures: none of these may fit.
	NotProcedures []string `json:"notProcedures,omitempty"`
	// ServerNames of the program's own TLS.
	ServerNames []string `json:"serverNames,omitempty"`
	// NotServerNames: none of these may fit.
	NotServerNames []string `json:"notServerNames,omitempty"`
}

// AuthorizationCondition compares one value; exactly one of Header, Query, Cookie and Claim is given.
type AuthorizationCondition struct {
	// Header of the request, in any case.
	Header string `json:"header,omitempty"`
	// Query is a parameter of the query.
	Query string `json:"query,omitempty"`
	// Cookie of the request.
	Cookie string `json:"cookie,omitempty"`
	// Claim of a verified token; a.b is b of the object a.
	Claim string `json:"claim,omitempty"`
	// Values: one must fit. Without Values and NotValues there must be one at all.
	Values []string `json:"values,omitempty"`
	// NotValues: none of these may fit.
	NotValues []string `json:"notValues,omitempty"`
}

// ExternalAuthorizer is a service that is asked (envoy.service.auth.v3 over gRPC, or HTTP).
type ExternalAuthorizer struct {
	// Service of the mesh that answers.
	Service FallbackRef `json:"service"`
	// Protocol is GRPC or HTTP. Default GRPC.
	Protocol string `json:"protocol,omitempty"`
	// Path is put before the request's path, for HTTP.
	Path string `json:"path,omitempty"`
	// Timeout of one question. Default 500ms.
	Timeout Duration `json:"timeout,omitempty"`
	// FailOpen allows what could not be asked. Default false.
	FailOpen bool `json:"failOpen,omitempty"`
	// Body sends the request's body along.
	Body *ExternalBody `json:"body,omitempty"`
	// RequestHeaders are sent. Default: all with GRPC; authorization and cookie with HTTP.
	RequestHeaders []string `json:"requestHeaders,omitempty"`
	// UpstreamHeaders of an answer that allows are passed on to the program, in the place of the request's own. Default: all that
	// the answer says with GRPC, none with HTTP.
	UpstreamHeaders []string `json:"upstreamHeaders,omitempty"`
	// AppendHeaders likewise, beside the request's own, with HTTP; with GRPC the answer says itself which it appends.
	AppendHeaders []string `json:"appendHeaders,omitempty"`
	// ClientHeaders of a refusal are passed on to the client. Default: all.
	ClientHeaders []string `json:"clientHeaders,omitempty"`
	// AllowHeaders of an answer that allows are passed on to the client, with the program's response. Default: all that the answer
	// says with GRPC, none with HTTP.
	AllowHeaders []string `json:"allowHeaders,omitempty"`
	// AskAgain is how often the authorizer is asked again about what it has let in and is still open (streams, WebSockets, long
	// responses), 1s to 24h, by chance a tenth earlier or later. None: only when policies change.
	AskAgain Duration `json:"askAgain,omitempty"`
}

// ExternalBody is how much of a body is sent along.
type ExternalBody struct {
	// MaxBytes, 1 to 1048576.
	MaxBytes int64 `json:"maxBytes"`
	// Partial sends the beginning of a longer body; otherwise such a request is refused.
	Partial bool `json:"partial,omitempty"`
}

// SecurityPolicyStatus is what the control plane says about a policy.
type SecurityPolicyStatus struct {
	// Services that it bears on.
	Services []string `json:"services,omitempty"`
	// Conditions are Accepted, ResolvedRefs (ports and authorizers that it names are there) and Programmed, with the count of
	// proxies that enforce it.
	Conditions []Condition `json:"conditions,omitempty"`
}

// RootNamespace is where policies about security without targetRefs are about every Service of the mesh.
const RootNamespace = "tulle-system"

// Actions of an AuthorizationPolicy.
const (
	ActionAllow    = "Allow"
	ActionDeny     = "Deny"
	ActionAudit    = "Audit"
	ActionExternal = "External"
)
