package v1alpha1

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// DefaultNamespace is where an object lives that does not say.
const DefaultNamespace = "default"

// Default fills in what the author left out.
func Default(o Object) {
	if m := Meta(o); m.Namespace == "" && KindOf(o).Namespaced {
		m.Namespace = DefaultNamespace
	}
	switch o := o.(type) {
	case *Service:
		defaultService(o)
	case *HTTPRoute:
		defaultHTTPRoute(o)
	case *TrafficPolicy:
		defaultTrafficPolicy(o)
	case *GRPCRoute:
		defaultGRPCRoute(o)
	case *TLSRoute:
		defaultTLSRoute(o)
	case *TCPRoute:
		defaultTCPRoute(o)
	case *FaultInjection:
		defaultFaultInjection(o)
	case *AuthorizationPolicy:
		defaultAuthorizationPolicy(o)
	case *AuthenticationPolicy:
		defaultAuthenticationPolicy(o)
	case *ExternalService:
		defaultExternalService(o)
	case *InferencePool:
		defaultInferencePool(o)
	case *MeshConfig:
		defaultMeshConfig(o)
	}
}

// Validate answers everything that is wrong with an object after Default. It applies the rules of the kind's
// published schema to what Tulle runs, and refuses the rest of the schema by name.
func Validate(o Object) []FieldError {
	var c check
	c.meta(o)
	switch o := o.(type) {
	case *Service:
		c.service(o)
	case *HTTPRoute:
		c.http = true
		c.httpRoute(o)
	case *TrafficPolicy:
		c.trafficPolicy(o)
	case *GRPCRoute:
		c.grpcRoute(o)
	case *TLSRoute:
		c.tlsRoute(o)
	case *TCPRoute:
		c.tcpRoute(o)
	case *ReferenceGrant:
		c.referenceGrant(o)
	case *FaultInjection:
		c.faultInjection(o)
	case *DirectResponse:
		c.directResponse(o)
	case *AuthorizationPolicy:
		c.authorizationPolicy(o)
	case *AuthenticationPolicy:
		c.authenticationPolicy(o)
	case *ExternalService:
		c.externalService(o)
	case *InferencePool:
		c.inferencePool(o)
	case *MeshConfig:
		c.meshConfig(o)
	}
	return c.errs
}

// maxQuoted bounds how much of a value an error repeats.
const maxQuoted = 200

// check gathers what is wrong.
type check struct {
	errs []FieldError
	http bool // it is an HTTPRoute that is checked
}

func (c *check) fail(path, format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(fmt.Stringer); ok {
			a = s.String()
		}
		if v := reflect.ValueOf(a); v.Kind() == reflect.String && v.Len() > maxQuoted {
			args[i] = v.String()[:maxQuoted] + "..."
		}
	}
	c.errs = append(c.errs, FieldError{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *check) meta(o Object) {
	m, kind := Meta(o), KindOf(o)
	switch {
	case m.Name == "":
		c.fail("metadata.name", "is missing: give the %s a name", kind.Name)
	case (kind.Name == "Service" || kind.Name == "ExternalService" || kind.Name == InferencePoolKind) && !label(m.Name):
		c.fail("metadata.name", "%q is not a name for %s: at most 63 of a-z, 0-9 and '-', a letter or digit first and last", m.Name, article(kind.Name))
	case !subdomain(m.Name):
		c.fail("metadata.name", "%q is not a name: at most 253 of a-z, 0-9, '-' and '.', a letter or digit first and last", m.Name)
	}
	switch {
	case !kind.Namespaced && m.Namespace != "":
		c.fail("metadata.namespace", "a %s belongs to the whole mesh: remove the namespace", kind.Name)
	case kind.Namespaced && !label(m.Namespace):
		c.fail("metadata.namespace", "%q is not a namespace: at most 63 of a-z, 0-9 and '-', a letter or digit first and last", m.Namespace)
	}
	if m.GenerateName != "" {
		c.fail("metadata.generateName", "is not supported: write metadata.name")
	}
	for k, v := range m.Labels {
		if !qualified(k) {
			c.fail("metadata.labels", "%q is not the key of a label", k)
		}
		if !labelValue(v) {
			c.fail("metadata.labels."+k, "%q is not the value of a label: at most 63 of letters, digits, '-', '_' and '.'", v)
		}
	}
}

func article(kind string) string {
	if strings.IndexByte("AEIOU", kind[0]) >= 0 {
		return "an " + kind
	}
	return "a " + kind
}

func (c *check) meshConfig(m *MeshConfig) {
	if m.Name != "" && m.Name != MeshConfigName {
		c.fail("metadata.name", "is %q: the one MeshConfig is named %q", m.Name, MeshConfigName)
	}
	if d := m.Spec.TrustDomain; !isTrustDomain(d) {
		c.fail("spec.trustDomain", "%q is not a trust domain: at most 255 of a-z, 0-9, '.', '-' and '_'", d)
	}
	c.believed(&m.Spec)
	// The registry gives addresses from its own two ranges; another one is refused instead of ignored.
	if m.Spec.VirtualIPv4 != DefaultVirtualIPv4 {
		c.fail("spec.virtualIPv4", "%q is not supported yet: write %s or leave it out", m.Spec.VirtualIPv4, DefaultVirtualIPv4)
	}
	if m.Spec.VirtualIPv6 != DefaultVirtualIPv6 {
		c.fail("spec.virtualIPv6", "%q is not supported yet: write %s or leave it out", m.Spec.VirtualIPv6, DefaultVirtualIPv6)
	}
	c.meshDefaults(m.Spec.Defaults)
	c.meshEgress(m.Spec.Egress)
	if a := m.Spec.Authorization; a != nil && a.Default != ActionAllow && a.Default != ActionDeny {
		c.fail("spec.authorization.default", "%q is not a decision: write Allow or Deny", a.Default)
	}
	if t := m.Spec.MTLS; t != nil {
		c.mode("spec.mtls.mode", t.Mode)
	}
	c.between("spec.trustedHops", int64(m.Spec.TrustedHops), 0, MaxTrustedHops)
}

func defaultMeshConfig(m *MeshConfig) {
	for _, d := range []struct {
		field *string
		value string
	}{{&m.Spec.TrustDomain, DefaultTrustDomain}, {&m.Spec.VirtualIPv4, DefaultVirtualIPv4}, {&m.Spec.VirtualIPv6, DefaultVirtualIPv6}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if a := m.Spec.Authorization; a != nil && a.Default == "" {
		a.Default = ActionAllow
	}
	if t := m.Spec.MTLS; t != nil && t.Mode == "" {
		t.Mode = ModePermissive
	}
	defaultEgress(m.Spec.Egress)
	if m.Spec.Defaults != nil {
		defaultParts(m.Spec.Defaults)
	}
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// only reports whether s has 1 to most bytes, all of them from set, the first and the last from ends.
func only(s, set, ends string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, set) == "" &&
		strings.IndexByte(ends, s[0]) >= 0 && strings.IndexByte(ends, s[len(s)-1]) >= 0
}

// label is an RFC 1123 label in lower case.
func label(s string) bool { return only(s, lower+digits+"-", lower+digits, 63) }

// subdomain is RFC 1123 labels with dots between them.
func subdomain(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(l string) bool {
		return !only(l, lower+digits+"-", lower+digits, 253)
	})
}

// qualified is the key of a label: an optional subdomain and a slash, and a name.
func qualified(s string) bool {
	domain, name, ok := strings.Cut(s, "/")
	if !ok {
		name = s
	} else if !subdomain(domain) {
		return false
	}
	return only(name, lower+upper+digits+"-_.", lower+upper+digits, 63)
}

func labelValue(s string) bool {
	return s == "" || only(s, lower+upper+digits+"-_.", lower+upper+digits, 63)
}
