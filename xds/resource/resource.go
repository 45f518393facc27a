// Package resource says how the model looks on the wire, in pairs: x_encode.go makes Envoy's message of a
// model noun, x_decode.go makes the noun of the message. decode(encode(m)) == m for everything the compiler
// makes; what a message asks for and Tulle does not run is refused by the field's name, never ignored. Facts
// that Envoy has no field for travel as tulle.v1 messages in metadata, which foreign clients skip. Pure;
// nothing that is passed in is kept or changed. Start reading at route_encode.go and route_decode.go.
package resource

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources.
const (
	TypeService    = "type.googleapis.com/tulle.v1.Service"
	TypeRouteTable = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeCluster    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoints  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// factsKey is the name of Tulle's entry in typed_filter_metadata.
const factsKey = "tulle.v1"

// RefusedError is the answer for a message that asks for what Tulle does not run.
type RefusedError struct {
	Field string // path of the field: "routes[2].match.case_sensitive"
	Why   string
}

func (e *RefusedError) Error() string { return e.Field + ": " + e.Why }

func refuse(field, format string, args ...any) error {
	return &RefusedError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// only refuses every field of m that is set and not among names, so that nothing is ignored silently.
func only(path string, m proto.Message, names ...string) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	var err error
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		for _, n := range names {
			if string(fd.Name()) == n {
				return true
			}
		}
		err = refuse(join(path, string(fd.Name())), "is not run by Tulle")
		return false
	})
	if err == nil && len(m.ProtoReflect().GetUnknown()) > 0 {
		err = refuse(path, "holds a field that this version does not know")
	}
	return err
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// Pack wraps a message; its bytes are the same for the same content within one build.
func Pack(m proto.Message) (*anypb.Any, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}, nil
}

// unpack fills m from a; the type has to be exactly m's.
func unpack(a *anypb.Any, m proto.Message) error {
	want := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	if a.GetTypeUrl() != want {
		return refuse("type_url", "%q is not %s", clip(a.GetTypeUrl()), want)
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("decode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return nil
}

// packFacts makes the metadata that carries facts; none at all when facts is empty.
func packFacts(facts proto.Message) (*corev3.Metadata, error) {
	if proto.Size(facts) == 0 {
		return nil, nil
	}
	a, err := Pack(facts)
	if err != nil {
		return nil, err
	}
	return &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{factsKey: a}}, nil
}

// unpackFacts reads the facts out of metadata and reports whether there were any. Metadata of others is for
// others: it is skipped.
func unpackFacts(path string, md *corev3.Metadata, facts proto.Message) (bool, error) {
	a, ok := md.GetTypedFilterMetadata()[factsKey]
	if !ok {
		return false, nil
	}
	if err := unpack(a, facts); err != nil {
		return false, refuse(join(path, "metadata"), "%v", err)
	}
	return true, nil
}

// clip keeps foreign text in errors short.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
