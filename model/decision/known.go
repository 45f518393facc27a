package decision

import (
	"crypto/sha256"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// Beside the fields that policies name, the text of fields has what else decides about who came. Each is a part of its own, so that
// what was recorded before there was one simply does not have it: then it is not known.
const (
	partCaller    = 'i' // "i:=10.0.0.7": the other end of the connection
	partPublished = 'p' // "p:": it came in through a published port
	partFederated = 'f' // "f:": the identity is another mesh's
	partFirst     = 'r' // "r:2=192.0.2.1": the first client, as far as 2 trusted proxies are believed
	partToken     = 't' // "t:ISSUERS": no token; "t:ISSUERS=ISSUER": a verified one. ISSUERS says who was believed (Issuers)
	partSubject   = 's' // "s:=HASH": of the token
	partHashed    = 'K' // "K:email=HASH": a claim of which a hash is enough
)

// Known is what is known about who came. The zero value: nothing.
type Known struct {
	Caller    netip.Addr // the other end of the connection; not valid: not known, nor is Published
	Published bool       // it came in through a published port
	Federated bool       // the identity is another mesh's
	First     netip.Addr // the first client, believing Hops trusted proxies
	Hops      int
	Token     bool   // whether there was a token is known, as the issuers of Issuers were believed
	Issuers   string // Issuers when it came
	Issuer    string // of the token; "": there was none
	Subject   string // Hash of it; "": not known
}

// Known answers what a key says.
func (k *Key) Known() (out Known) {
	for part := range strings.SplitSeq(k.Fields, "&") {
		if len(part) < 2 || part[1] != ':' {
			continue
		}
		name, value, there := strings.Cut(part[2:], "=")
		name, value = unescaped(name), unescaped(value)
		switch part[0] {
		case partCaller:
			out.Caller = address(value)
		case partPublished:
			out.Published = true
		case partFederated:
			out.Federated = true
		case partFirst:
			if n, err := strconv.Atoi(name); err == nil {
				out.First, out.Hops = address(value), n
			}
		case partToken:
			out.Token, out.Issuers = true, name
			if there {
				out.Issuer = value
			}
		case partSubject:
			out.Subject = value
		}
	}
	return out
}

func address(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// AppendCaller appends who is at the other end of a connection. One that is not valid is not told.
func AppendCaller(dst []byte, from netip.Addr, published bool) []byte {
	if !from.IsValid() {
		return dst
	}
	dst = from.Unmap().WithZone("").AppendTo(append(appendPart(dst, partCaller), '='))
	if published {
		dst = appendPart(dst, partPublished)
	}
	return dst
}

// AppendFederated appends that the identity is another mesh's.
func AppendFederated(dst []byte) []byte { return appendPart(dst, partFederated) }

// AppendFirst appends the first client, as far as hops trusted proxies are believed.
func AppendFirst(dst []byte, hops int, first netip.Addr) []byte {
	if !first.IsValid() || hops == 0 {
		return dst
	}
	dst = append(strconv.AppendInt(appendPart(dst, partFirst), int64(hops), 10), '=')
	return first.Unmap().WithZone("").AppendTo(dst)
}

// AppendToken appends that there was no token while issuers were believed, or a verified one of issuer.
func AppendToken(dst []byte, issuers, issuer string) []byte {
	dst = appendEscaped(appendPart(dst, partToken), issuers)
	if issuer == "" {
		return dst
	}
	return appendEscaped(append(dst, '='), issuer)
}

func appendPart(dst []byte, kind byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, '&')
	}
	return append(dst, kind, ':')
}

// maxValues is how many values of one field are told.
const maxValues = 4

// AppendNamed appends what policies on a's port look at: header and query fields, claims (a hash of those that are only compared as a
// whole) and a hash of the token's subject. What may be a credential, by its name or because secret says so, or is longer than its bound,
// is left out: then it is not known. It allocates nothing but growth of dst.
func AppendNamed(dst []byte, set *authz.Set, a *authz.Attributes, secret func(model.ConditionKind, string) bool) []byte {
	if a.Fields == nil {
		return dst
	}
	for _, n := range set.Names(a.Port) {
		if n.Kind != model.ConditionClaim && (Secret(n.Kind, n.Name) || secret(n.Kind, n.Name)) {
			continue
		}
		before := len(dst)
		if dst = appendValues(dst, &n, a.Fields); len(dst) > MaxFields {
			dst = dst[:before]
		}
	}
	if at := len(dst); a.Token != "" && set.Principals(a.Port) {
		if dst = appendHash(append(appendPart(dst, partSubject), '='), a.Token); len(dst) > MaxFields {
			dst = dst[:at]
		}
	}
	return dst
}

// appendValues appends the values of one name, or nothing where there are too many, or too long ones.
func appendValues(dst []byte, n *authz.Name, f authz.Fields) []byte {
	before, hashed := len(dst), n.Kind == model.ConditionClaim && !n.Plain
	for i := 0; ; i++ {
		v, ok := f.Value(n.Kind, n.Name, i)
		switch {
		case !ok && i > 0:
			return dst
		case !ok && hashed:
			return appendEscaped(appendPart(dst, partHashed), n.Name)
		case !ok:
			return AppendField(dst, n.Kind, n.Name, "", false)
		case i == maxValues, !hashed && len(v) > MaxValue:
			return dst[:before]
		case hashed:
			dst = appendHash(append(appendEscaped(appendPart(dst, partHashed), n.Name), '='), v)
		default:
			dst = AppendField(dst, n.Kind, n.Name, v, true)
		}
	}
}

// hashSize is how many bytes of a SHA-256 are told: enough that no two values of a mesh meet. It keeps values from being read by
// accident, not from whoever tries all that there may be.
const hashSize = 12

// Hash answers what is told of a value of which a hash is enough.
func Hash(v string) string { return string(appendHash(nil, v)) }

func appendHash(dst []byte, v string) []byte {
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(v), len(v)))
	for _, c := range sum[:hashSize] {
		dst = append(dst, lower[c>>4], lower[c&15])
	}
	return dst
}

const lower = "0123456789abcdef"

// WithoutCaller answers the text of fields without addresses: what is left when there are too many of them.
func WithoutCaller(fields string) string {
	if !strings.HasPrefix(fields, "i:") && !strings.Contains(fields, "&i:") {
		return fields
	}
	var out []string
	for part := range strings.SplitSeq(fields, "&") {
		if len(part) < 2 || part[1] != ':' || part[0] != partCaller && part[0] != partFirst && part[0] != partPublished {
			out = append(out, part)
		}
	}
	return strings.Join(out, "&")
}
