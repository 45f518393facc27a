package exchange

import "github.com/tulle-mesh/tulle/proxy/message"

// What a request says that only proxies may say is taken out where it enters the mesh (from a program, or through --publish)
// and once more where it leaves it, in front of the program: a caller's proxy is not trusted to have done it. Programs that get
// fields as variables (CGI and its kin) cannot tell '-' from '_' or '.', so spellings with those are the same field here.
// Foreign listeners have rules of their own (certificate.go, edge.go).

// spokenFor are the fields x-envoy-* by which Envoy tells upstreams who a request is from and what it is; told: another proxy of the
// mesh may have said it, when it rewrote the request.
var spokenFor = [...]struct {
	name string // without fieldEnvoy
	told bool
}{
	{"internal", false}, {"external-address", false}, {"peer-metadata", false}, {"peer-metadata-id", false}, {"decorator-operation", false},
	{"downstream-service-cluster", false}, {"downstream-service-node", false}, {"original-dst-host", false}, {"original-url", false},
	{"original-path", true}, {"original-host", true}, {"force-trace", false}, {"ip-tags", false},
}

const fieldForwardedAny = "x-forwarded-"

// reserved reports whether a request's or trailer's field is nobody's to say but a proxy's, beside those that believe looks at.
func (x *Exchange) reserved(name []byte) bool {
	if len(name) <= len(fieldPrefix) {
		return false
	}
	switch name[0] {
	case 't', 'T':
		return message.Alias(name[:len(fieldPrefix)], fieldPrefix)
	case 'x', 'X':
	default:
		return false
	}
	switch {
	case x.origin.HTTP != nil || len(name) <= len(fieldEnvoy):
		return false
	case message.Alias(name, fieldXFCC):
		return true
	case message.Alias(name[:len(fieldEnvoy)], fieldEnvoy):
		return x.impersonates(name[len(fieldEnvoy):])
	}
	// Here x-forwarded-for is ours to write; what passes for it behind our back is not let through.
	return x.origin.Publish && len(name) > len(fieldForwardedAny) && message.Alias(name[:len(fieldForwardedAny)], fieldForwardedAny) && !hyphens(name)
}

func (x *Exchange) impersonates(name []byte) bool {
	for i := range spokenFor {
		if message.Alias(name, spokenFor[i].name) {
			return !(spokenFor[i].told && x.origin.Mesh)
		}
	}
	return false
}

// hyphens reports whether a name is written without '_' and '.'.
func hyphens(name []byte) bool {
	for _, c := range name {
		if c == '_' || c == '.' {
			return false
		}
	}
	return true
}

// cleanseTrailers takes out of a request's trailers, or of a program's to a response, what only proxies may say: some programs
// put them among the fields.
func (x *Exchange) cleanseTrailers(h *message.Head) {
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		if !x.reserved(f.Name) {
			keep = append(keep, f)
		}
	}
	h.Fields = keep
}
