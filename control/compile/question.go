package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// Question is who would ask for what: everything that policies look at. Names of services are without their namespace, which
// is beside them, or "name.namespace", or "namespace/name".
type Question struct {
	From      string `json:"from,omitempty"`      // a service account, or a SPIFFE ID; "": nobody who proves who he is
	To        string `json:"to"`                  // a service, an ExternalService, or a host or an address outside of the mesh
	Namespace string `json:"namespace,omitempty"` // of both, where they do not say
	Port      uint16 `json:"port,omitempty"`      // of the service; 0: the only one that it has
	// Method and the rest of a request; without Method it is a connection that is not HTTP.
	Method     string      `json:"method,omitempty"`
	Path       string      `json:"path,omitempty"` // with its query
	Host       string      `json:"host,omitempty"` // default: the service's name
	Procedure  bool        `json:"grpc,omitempty"` // a gRPC call: the path says the procedure
	Headers    []NameValue `json:"headers,omitempty"`
	IP         string      `json:"ip,omitempty"`
	RemoteIP   string      `json:"remoteIP,omitempty"` // default: IP
	ServerName string      `json:"serverName,omitempty"`
	Token      string      `json:"token,omitempty"` // "issuer/subject"
	Claims     []NameValue `json:"claims,omitempty"`
	// ToLabels are those of the workload that is asked, and of the one that calls what is outside of the mesh; nil: of each that there is.
	ToLabels []model.Label `json:"toLabels,omitempty"`
	// TrustDomain of accounts, Now in Unix seconds: filled in by who answers.
	TrustDomain string `json:"-"`
	Now         int64  `json:"time,omitempty"`
	// Revoked answers, in one line, that a SPIFFE ID was taken out of use; "": it was not. nil: none was. Filled in by who answers.
	Revoked func(id string) string `json:"-"`
}

// check reports what cannot be asked: no request or caller can be so.
func (q *Question) check() error {
	switch {
	case q.Path != "" && q.Path[0] != '/' && (q.Path != "*" || q.Method != "OPTIONS"):
		return fmt.Errorf("--path %q does not begin with a slash: write for example --path /items/7", q.Path)
	case strings.ContainsFunc(q.Path, blank):
		return fmt.Errorf("--path %q has a space or a control character in it, as no request has: write for example --path /a%%20b", q.Path)
	case q.Method != "" && !word(q.Method):
		return fmt.Errorf("--method %q is none: write for example --method GET", q.Method)
	case strings.ContainsFunc(q.Host, blank) || strings.ContainsAny(q.Host, "/?#@"):
		return fmt.Errorf("--host %q is none: write for example --host shop.example.com", q.Host)
	case strings.ContainsFunc(q.ServerName, blank) || strings.ContainsAny(q.ServerName, "/:?#@"):
		return fmt.Errorf("--sni %q is no server name: write for example --sni shop.example.com", q.ServerName)
	case q.Token != "" && !principal(q.Token):
		return fmt.Errorf("--token %q is not issuer/subject: write for example --token https://issuer.example.com/alice", q.Token)
	}
	for _, h := range q.Headers {
		if !word(h.Name) {
			return fmt.Errorf("--header %q is no name of a field: write for example --header x-user=alice", h.Name)
		}
	}
	return nil
}

// blank reports whether no target, host or name has such a character.
func blank(r rune) bool { return r <= ' ' || r == 0x7f }

// word reports whether s is a token of HTTP (RFC 9110 section 5.6.2), as methods and names of fields are.
func word(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// principal reports whether s is an issuer, a slash and a subject; the issuer may be an address.
func principal(s string) bool {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	issuer, subject, _ := strings.Cut(s, "/")
	return issuer != "" && subject != "" && !strings.ContainsFunc(s, blank)
}

// clusterDomain ends the full names of Services.
const clusterDomain = ".svc.cluster.local"

// Service answers the service that is asked.
func (q *Question) Service() (model.ServiceName, error) {
	to := strings.TrimSuffix(q.To, clusterDomain)
	ns, name := q.named(to)
	if n, err := model.ParseServiceName(to); err == nil {
		return n, nil
	}
	if name == "" {
		return model.ServiceName{}, fmt.Errorf("--to names no Service: write reviews, or reviews.shop for another namespace")
	}
	return model.ServiceName{Namespace: ns, Name: name}, nil
}

// named reads "name" and "namespace/name".
func (q *Question) named(s string) (namespace, name string) {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return ns, name
	}
	return cmp.Or(q.Namespace, "default"), s
}

// attributes answers what policies look at, but for what depends on the port: the path as they see it, and whether a token counts (Compiler.Decide).
func (q *Question) attributes(host string, port uint16) (*authz.Attributes, error) {
	a := &authz.Attributes{Port: port, ServerName: strings.ToLower(q.ServerName), Now: q.Now}
	if err := q.caller(a); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"--ip", q.IP, &a.IP}, {"--remote-ip", cmp.Or(q.RemoteIP, q.IP), &a.RemoteIP}} {
		if one.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(one.text)
		if err != nil {
			return nil, fmt.Errorf("%s %q is not an address: write for example %[1]s 10.0.0.9", one.flag, one.text)
		}
		*one.to = addr.Unmap()
	}
	if q.Method != "" {
		a.HTTP, a.Method, a.Host = true, q.Method, plainHost(cmp.Or(q.Host, host))
	}
	return a, nil
}

// plainHost answers a host in lower case, without a port and without the dot at the end of a full name.
func plainHost(s string) string {
	if at, port, ok := strings.Cut(s, ":"); ok && strings.Trim(port, "0123456789") == "" {
		s = at
	} else if end := strings.LastIndexByte(s, ']'); end >= 0 {
		s = s[:end+1]
	}
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// target answers the request's path and query, as it is sent.
func (q *Question) target() string { return cmp.Or(q.Path, "/") }

// preflight reports whether a browser asks whether it may ask: such requests bear no token.
func (q *Question) preflight() bool {
	f := asking{q: q}
	_, origin := f.Value(model.ConditionHeader, "origin", 0)
	_, wanted := f.Value(model.ConditionHeader, "access-control-request-method", 0)
	return q.Method == "OPTIONS" && origin && wanted
}

// caller fills in who asks.
func (q *Question) caller(a *authz.Attributes) error {
	if q.From == "" {
		return nil
	}
	var id spiffe.ID
	if strings.HasPrefix(q.From, "spiffe://") {
		var err error
		if id, err = spiffe.ParseID(q.From); err != nil {
			return fmt.Errorf("--from %q is not the SPIFFE ID of a workload: write for example spiffe://tulle.local/ns/default/sa/cart", q.From)
		}
	} else {
		id.Namespace, id.ServiceAccount = q.named(q.From)
		if n, err := model.ParseServiceName(q.From); err == nil && !strings.Contains(q.From, "/") {
			id.Namespace, id.ServiceAccount = n.Namespace, n.Name
		}
		id.TrustDomain = q.TrustDomain
		if id.Validate() != nil {
			return fmt.Errorf("--from %q names no service account: write for example --from cart, --from shop/cart or --from spiffe://tulle.local/ns/default/sa/cart", q.From)
		}
	}
	a.Principal, a.TrustDomain, a.Namespace, a.Account = id.String(), id.TrustDomain, id.Namespace, id.Namespace+"/"+id.ServiceAccount
	return nil
}
