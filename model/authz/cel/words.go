package cel

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// Words answers the variables of the language with their types and meanings, in the order of the reference.
func Words() []Word {
	return []Word{
		{"request.method", "string", "GET"},
		{"request.path", "string", "normalized, without the query"},
		{"request.host", "string", "in lower case, without a port"},
		{"request.procedure", "string", "of gRPC: package.Service/Method"},
		{"request.headers", "fields", "names in lower case; several fields of one name are joined by a comma"},
		{"request.query", "fields", "parameters of the query"},
		{"request.cookies", "fields", ""},
		{"source.principal", "string", "SPIFFE ID of the caller; empty: plaintext"},
		{"source.trustDomain", "string", ""},
		{"source.namespace", "string", ""},
		{"source.account", "string", "namespace/service account"},
		{"source.ip", "string", "of the other end of the connection"},
		{"source.remoteIP", "string", "of the first client, as far as it is believed"},
		{"destination.port", "int", "of the service"},
		{"destination.serverName", "string", "SNI of the program's own TLS"},
		{"token.principal", "string", "issuer/subject of a verified token"},
		{"token.claims", "fields", "a.b is b of the object a"},
		{"now", "timestamp", "when the request came"},
	}
}

// Word is one variable.
type Word struct{ Name, Type, Meaning string }

// fieldsType is of what has names and texts. It is no map, because nothing lists the names: what would go through all of them
// does not compile. It can be asked for one, x["name"] (an error where there is none, or several), whether there is one, "name"
// in x, and for all of one name, x.values("name").
func fieldsType() *cel.Type {
	return types.NewOpaqueType("fields").WithTraits(traits.IndexerType | traits.ContainerType)
}

// words is the environment of expressions.
func words() []cel.EnvOption {
	of := map[string]*cel.Type{"string": cel.StringType, "int": cel.IntType, "timestamp": cel.TimestampType, "fields": fieldsType()}
	out := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxText), cel.ParserRecursionLimit(maxDepth), cel.DefaultUTCTimeZone(true),
		cel.Function(operators.Index, cel.Overload("index_fields", []*cel.Type{of["fields"], cel.StringType}, cel.StringType)),
		cel.Function(operators.In, cel.Overload("in_fields", []*cel.Type{cel.StringType, of["fields"]}, cel.BoolType)),
		cel.Function("values", cel.MemberOverload("fields_values", []*cel.Type{of["fields"], cel.StringType}, cel.ListType(cel.StringType), cel.BinaryBinding(values))),
		cel.Function("within", cel.MemberOverload("string_within", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(within))),
	}
	for _, w := range Words() {
		out = append(out, cel.Variable(w.Name, of[w.Type]))
	}
	return out
}

// asked is Attributes as the language sees them.
type asked struct{ *authz.Attributes }

// Parent implements interpreter.Activation.
func (asked) Parent() interpreter.Activation { return nil }

// ResolveName implements interpreter.Activation.
func (a asked) ResolveName(name string) (any, bool) {
	switch name {
	case "request.method":
		return types.String(a.Method), true
	case "request.path":
		return types.String(a.Path), true
	case "request.host":
		return types.String(a.Host), true
	case "request.procedure":
		return types.String(a.Procedure), true
	case "request.headers":
		return fields{a.Fields, model.ConditionHeader}, true
	case "request.query":
		return fields{a.Fields, model.ConditionQuery}, true
	case "request.cookies":
		return fields{a.Fields, model.ConditionCookie}, true
	case "source.principal":
		return types.String(a.Principal), true
	case "source.trustDomain":
		return types.String(a.TrustDomain), true
	case "source.namespace":
		return types.String(a.Namespace), true
	case "source.account":
		return types.String(a.Account), true
	case "source.ip":
		return address(a.IP), true
	case "source.remoteIP":
		return address(a.RemoteIP), true
	case "destination.port":
		return types.Int(a.Port), true
	case "destination.serverName":
		return types.String(a.ServerName), true
	case "token.principal":
		return types.String(a.Token), true
	case "token.claims":
		return fields{a.Fields, model.ConditionClaim}, true
	case "now":
		return types.Timestamp{Time: time.Unix(a.Now, 0).UTC()}, true
	}
	return nil, false
}

func address(a netip.Addr) types.String {
	if !a.IsValid() {
		return ""
	}
	return types.String(a.Unmap().WithZone("").String())
}

// within reports whether an address is in a prefix. One that is not known is in none.
func within(addr, prefix ref.Val) ref.Val {
	a, ok := addr.(types.String)
	b, isText := prefix.(types.String)
	if !ok || !isText {
		return types.NewErr("no such overload")
	}
	p, err := netip.ParsePrefix(string(b))
	if err != nil {
		return types.NewErr("%q is not an address with a length, such as 10.0.0.0/8", string(b))
	}
	if a == "" {
		return types.False
	}
	ip, err := netip.ParseAddr(string(a))
	if err != nil {
		return types.NewErr("%q is not an address", string(a))
	}
	return types.Bool(p.Masked().Contains(ip.Unmap()))
}

// maxValues is how many values of one name are looked at; more are an error.
const maxValues = 64

// fields is one kind of what authz.Fields answers, as a value of the language. What it answers is its own: Fields may answer
// memory that the next call overwrites.
type fields struct {
	of   authz.Fields
	kind model.ConditionKind
}

// all answers every value of a name.
func (f fields) all(name ref.Val) ([]string, *types.Err) {
	n, ok := name.(types.String)
	if !ok {
		return nil, types.NewErr("no such overload").(*types.Err)
	}
	if f.of == nil {
		return nil, nil
	}
	key := string(n)
	if f.kind == model.ConditionHeader {
		key = strings.ToLower(key)
	}
	var out []string
	for i := 0; ; i++ {
		v, ok := f.of.Value(f.kind, key, i)
		if !ok {
			return out, nil
		}
		if i == maxValues {
			return nil, types.NewErr("more than %d values of %q", maxValues, clip(key)).(*types.Err)
		}
		out = append(out, strings.Clone(v))
	}
}

func values(f, name ref.Val) ref.Val {
	one, ok := f.(fields)
	if !ok {
		return types.NewErr("no such overload")
	}
	list, err := one.all(name)
	if err != nil {
		return err
	}
	return types.NewStringList(types.DefaultTypeAdapter, list)
}

// Get implements traits.Indexer.
func (f fields) Get(name ref.Val) ref.Val {
	list, err := f.all(name)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return types.NewErr("no such key: %v", name.Value())
	case len(list) > 1 && f.kind != model.ConditionHeader:
		return types.NewErr("there are %d of %v: say which with values()", len(list), name.Value())
	}
	return types.String(strings.Join(list, ",")) // RFC 9110 section 5.3
}

// Contains implements traits.Container.
func (f fields) Contains(name ref.Val) ref.Val {
	list, err := f.all(name)
	if err != nil {
		return err
	}
	return types.Bool(len(list) > 0)
}

var errOpaque = errors.New("fields are no value of another type")

// ConvertToNative implements ref.Val.
func (f fields) ConvertToNative(reflect.Type) (any, error) { return nil, errOpaque }

// ConvertToType implements ref.Val.
func (f fields) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("type conversion error from fields to %s", t.TypeName())
}

// Equal implements ref.Val.
func (f fields) Equal(ref.Val) ref.Val { return types.NewErr("fields cannot be compared") }

// Type implements ref.Val.
func (f fields) Type() ref.Type { return fieldsType() }

// Value implements ref.Val.
func (f fields) Value() any { return "fields" }
