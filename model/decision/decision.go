// Package decision is what proxies tell of what they have let in and what not: decisions that look the same, counted together.
// A path is told as it was as long as there are few, then folded into templates; the values of header and query fields are told only
// where a policy names the field. Credentials (cookies, authorization) are never told. Pure. Start reading at Key.
package decision

import (
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// Bounds of what is told; what is longer is counted with the others.
const (
	MaxPath   = 256 // bytes
	MaxText   = 253 // bytes of any other text
	MaxFields = 512 // bytes of Fields
	MaxValue  = 64  // bytes of one value of a field
	MaxReport = 256 // entries of one report
)

// Verdicts.
const (
	Allowed = "allowed" // also where no policy was in force
	Denied  = "denied"
)

// Key is what makes decisions different.
type Key struct {
	Principal  string `json:"principal,omitempty"` // SPIFFE ID that the peer has proven; "": plaintext
	Port       uint16 `json:"port"`                // of the service
	TCP        bool   `json:"tcp,omitempty"`       // a connection that is not HTTP: the rest, but for ServerName, is not known
	GRPC       bool   `json:"grpc,omitempty"`
	Method     string `json:"method,omitempty"`
	Host       string `json:"host,omitempty"` // in lower case, without a port
	Path       string `json:"path,omitempty"` // normalized, without the query
	Folded     bool   `json:"folded,omitempty"`
	ServerName string `json:"serverName,omitempty"`
	Fields     string `json:"fields,omitempty"` // AppendField
	Verdict    string `json:"verdict"`
	Policy     string `json:"policy,omitempty"` // that decided; "": none did, by default or for absence
	Rule       string `json:"rule,omitempty"`
	Absent     bool   `json:"absent,omitempty"` // denied because nothing allowed it
}

// Seen is a Key and how often.
type Seen struct {
	Key
	Count   uint64 `json:"count"`
	First   int64  `json:"first"`             // milliseconds of Unix time
	Last    int64  `json:"last"`              // likewise
	Request string `json:"request,omitempty"` // x-request-id of one of them
	Sample  string `json:"sample,omitempty"`  // path of one of them, where Path is folded
}

// Add counts what another proxy, or the same one later, has seen of the same key.
func (s *Seen) Add(o *Seen) {
	s.Count += o.Count
	if s.First == 0 || o.First != 0 && o.First < s.First {
		s.First = o.First
	}
	if o.Last >= s.Last {
		s.Last = o.Last
		if o.Request != "" {
			s.Request = o.Request
		}
		if o.Sample != "" {
			s.Sample = o.Sample
		}
	}
}

// At answers Last as a time.
func (s *Seen) At() time.Time { return time.UnixMilli(s.Last) }

// Report is what one proxy has seen since its last one.
type Report struct {
	Of     []Seen
	Others uint64 // decisions that there was no room for
	// Unproven are those who came in plaintext; UnprovenOthers counts the requests and connections that there was no room for.
	Unproven       []Unproven
	UnprovenOthers uint64
}

// Empty reports whether there is nothing to tell.
func (r *Report) Empty() bool {
	return len(r.Of) == 0 && r.Others == 0 && len(r.Unproven) == 0 && r.UnprovenOthers == 0
}

// Valid reports whether a key keeps its bounds.
func (k *Key) Valid() bool {
	return len(k.Path) <= MaxPath && len(k.Fields) <= MaxFields && len(k.Principal) <= 2*MaxText && (k.Verdict == Allowed || k.Verdict == Denied) &&
		len(k.Method) <= MaxText && len(k.Host) <= MaxText && len(k.ServerName) <= MaxText && len(k.Policy) <= 3*MaxText && len(k.Rule) <= MaxText
}

// Refused reports whether it was refused before policies were asked, for a reason of proxy/failure: want of a token or of mutual TLS.
func (k *Key) Refused(reason string) bool {
	return k.Verdict == Denied && k.Policy == "" && !k.Absent && k.Rule == reason
}

// Procedure answers "package.Service/Method" of a gRPC request.
func (k *Key) Procedure() string {
	if !k.GRPC {
		return ""
	}
	return strings.TrimPrefix(k.Path, "/")
}

// Attributes answers a decision as policies look at it, but for addresses and the token (Key.Known). What was not told is not known.
func (s *Seen) Attributes(now int64) authz.Attributes {
	a := authz.Attributes{Principal: s.Principal, Port: s.Port, ServerName: s.ServerName, Now: now}
	if domain, namespace, account, ok := Parts(s.Principal); ok {
		a.TrustDomain, a.Namespace, a.Account = domain, namespace, namespace+"/"+account
	}
	if s.TCP {
		return a
	}
	a.HTTP, a.Method, a.Host, a.Path, a.Procedure = true, s.Method, s.Host, s.Path, s.Procedure()
	if s.Folded && s.Sample != "" {
		a.Path = s.Sample
	}
	if s.Fields != "" {
		a.Fields = ParseFields(s.Fields)
	}
	return a
}

// Secret reports whether the value of a field is a credential, or may be one: it is never told.
func Secret(kind model.ConditionKind, name string) bool {
	if kind != model.ConditionHeader && kind != model.ConditionQuery {
		return true
	}
	for _, part := range [...]string{"authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "session"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// Parts answers what a SPIFFE ID of a mesh is made of: spiffe://domain/ns/namespace/sa/account.
func Parts(id string) (domain, namespace, account string, ok bool) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	p := strings.Split(rest, "/")
	if !ok || len(p) != 5 || p[1] != "ns" || p[3] != "sa" {
		return "", "", "", false
	}
	return p[0], p[2], p[4], true
}
