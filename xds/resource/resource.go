// Package resource says how the model looks on the wire, in pairs: x_encode.go makes Envoy's message of a
// model noun, x_decode.go makes the noun of the message. decode(encode(m)) == m for everything the compiler
// makes. Envoy's fields are read by package xds/envoy, as those of a file are: what a message asks for and Tulle does
// not run is refused by the field's name, never ignored. What they do not say exactly travels as facts, tulle.v1 messages
// in metadata, which foreign clients skip (facts.go): an encoder writes Envoy's fields as well as it can, reads them
// again, and says the difference. Pure; nothing that is passed in is kept or changed. Start reading at route_encode.go
// and route_decode.go.
package resource

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type URLs of the resources.
const (
	TypeService    = "type.googleapis.com/tulle.v1.Service"
	TypeRouteTable = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeCluster    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoints  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeSecurity   = "type.googleapis.com/tulle.v1.Security" // named by the service, "reviews.default"
	TypeTrust      = "type.googleapis.com/tulle.v1.Trust"    // one, named TrustName
)

// TrustName is the name of the only resource of TypeTrust.
const TrustName = "trust"

// RefusedError is the answer for a message that asks for what Tulle does not run.
type RefusedError struct {
	Field string // path of the field: "routes[2].match.case_sensitive"
	Why   string
}

func (e *RefusedError) Error() string { return e.Field + ": " + e.Why }

func refuse(field, format string, args ...any) error {
	return &RefusedError{Field: field, Why: fmt.Sprintf(format, args...)}
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

// clip keeps foreign text in errors short.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
