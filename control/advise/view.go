package advise

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// view is what is known of an entry where some policies are in force: whether it bore a token depends on whose are believed.
type view struct {
	decision.Known
	fields decision.Fields
	tcp    bool
	named  bool // ServerName is known
	hops   int  // that the policies believe
	bore   bearing
}

// bearing is what is known of the token of a request.
type bearing uint8

const (
	unsure bearing = iota // whether it bore one, or which
	none
	bears // of Known.Issuer
)

// viewOf looks at an entry where tokens of issuers (decision.Issuers) are believed.
func viewOf(e *decisions.Entry, issuers string, hops int) view {
	v := view{Known: e.Known(), tcp: e.TCP, named: e.ServerName != "", hops: hops}
	if e.Fields != "" {
		v.fields = decision.ParseFields(e.Fields)
	}
	switch {
	case e.TCP || issuers == "":
		v.bore = none
	case v.Token && v.Issuers == issuers && v.Issuer == "":
		v.bore = none
	case v.Token && v.Issuers == issuers:
		v.bore = bears
	}
	if v.bore != bears { // what a token said that is not believed nobody hears
		v.fields = slices.DeleteFunc(v.fields, func(f decision.Field) bool { return f.Kind == model.ConditionClaim })
	}
	return v
}

// key is what of a view decides how policies are reduced: views with the same key share that.
func (v *view) key() string {
	var b strings.Builder
	fmt.Fprint(&b, v.tcp, v.named, v.Caller.IsValid(), v.first(), v.bore)
	if v.bore == bears {
		fmt.Fprintf(&b, "%q%q", v.Issuer, v.Subject)
	}
	for _, f := range v.fields {
		fmt.Fprintf(&b, "\x00%d%v%s", f.Kind, f.Hashed, f.Name)
	}
	return b.String()
}

// first reports whether the first client's address is known.
func (v *view) first() bool {
	return v.Caller.IsValid() && (v.hops == 0 || !v.Published || v.tcp || v.Hops == v.hops && v.First.IsValid())
}

// principal is what stands for "issuer/subject" where policies were reduced to compare it with.
func (v *view) principal() string {
	if v.bore != bears {
		return ""
	}
	return v.Issuer + "/#" + v.Subject
}

// attributes answers an entry as policies look at it. What is not known no policy that was reduced asks for.
func (v *view) attributes(e *decisions.Entry, now int64) authz.Attributes {
	a := e.Attributes(now)
	a.IP, a.RemoteIP, a.Federated = v.Caller, v.Caller, v.Federated
	if v.hops > 0 && v.Published && !v.tcp {
		a.RemoteIP = v.First
	}
	if !v.tcp {
		a.Token, a.Fields = v.principal(), v.fields
	}
	return a
}

// sees answers what an expression looks at and is not known; "": it is all known.
func (v *view) sees(x authz.Expression) string {
	l, ok := x.(authz.Looker)
	if !ok {
		return "what an expression looks at"
	}
	what := l.Looks()
	switch {
	case what.Others:
		return "what an expression looks at"
	case what.Caller && !v.Caller.IsValid():
		return callersAddress
	case what.First && !v.first():
		return clientsAddress
	case what.Token && v.bore != none: // of a token's subject there is a hash at most
		return theToken
	}
	for _, n := range what.Names {
		if missing := v.lacks(n, true); missing != "" {
			return missing
		}
	}
	return ""
}

// What may not be known, as it is said.
const (
	callersAddress = "the caller's address"
	clientsAddress = "the first client's address"
	theToken       = "the token"
)

// lacks answers what of a name is not known; plain: a hash is not enough.
func (v *view) lacks(n authz.Name, plain bool) string {
	kind := [...]string{"header", "query parameter", "cookie", "claim"}[n.Kind%4]
	if n.Kind == model.ConditionClaim && v.bore == none {
		return ""
	}
	at := slices.IndexFunc(v.fields, func(f decision.Field) bool { return f.Kind == n.Kind && f.Name == n.Name })
	switch {
	case at < 0:
		return kind + " " + n.Name
	case plain && v.fields[at].Hashed && len(v.fields[at].Values) > 0:
		return kind + " " + n.Name + " (but for a hash)"
	}
	return ""
}

// hashed reports whether only a hash of a claim is known.
func (v *view) hashed(kind model.ConditionKind, name string) bool {
	return slices.ContainsFunc(v.fields, func(f decision.Field) bool { return f.Kind == kind && f.Name == name && f.Hashed })
}
