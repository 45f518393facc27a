// Package v1alpha1 holds the resources that users write: one file per kind with its type, its defaults and its
// validation. Kinds that Kubernetes or Gateway API define are theirs, so that one file runs on plain machines
// and on Kubernetes; what Tulle does not run yet is refused by name, never ignored. Pure; objects are not
// shared while they are changed. Start reading at Object and Kinds, then route.go.
package v1alpha1

import (
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Aliases of the parts that all kinds share, so that only package api imports Kubernetes.
type (
	// TypeMeta is apiVersion and kind.
	TypeMeta = metav1.TypeMeta
	// ObjectMeta is the metadata of an object. Tulle keeps name, namespace, labels and annotations, and
	// serves uid, resourceVersion, generation and creationTimestamp.
	ObjectMeta = metav1.ObjectMeta
	// Condition is one line of a status.
	Condition = metav1.Condition
	// ConditionStatus is True, False or Unknown.
	ConditionStatus = metav1.ConditionStatus
	// UID is the unique identity of an object.
	UID = types.UID
	// Time is a time with the resolution of a second, as Kubernetes writes it.
	Time = metav1.Time
)

// Object is any resource, such as *Service, *HTTPRoute, *TrafficPolicy or *MeshConfig.
type Object interface {
	// GetName and GetNamespace answer the object's name. The namespace is "" for kinds of the whole mesh.
	GetName() string
	GetNamespace() string
	// GetLabels answers the object's own labels.
	GetLabels() map[string]string
}

// Kind describes one kind of resource.
type Kind struct {
	Name       string   // "HTTPRoute", unique
	APIVersion string   // "gateway.networking.k8s.io/v1"
	Plural     string   // "httproutes"
	Older      []string // versions of the API that mean the same and are taken too
	Namespaced bool
	New        func() Object // an empty one
}

// Kinds answers every kind that Tulle runs, in the order in which they are listed to users.
func Kinds() []Kind {
	return []Kind{
		{Name: "Service", APIVersion: "v1", Plural: "services", Namespaced: true, New: func() Object { return new(Service) }},
		{Name: "HTTPRoute", APIVersion: GatewayAPIVersion, Older: older("v1beta1"), Plural: "httproutes", Namespaced: true, New: func() Object { return new(HTTPRoute) }},
		{Name: "GRPCRoute", APIVersion: GatewayAPIVersion, Plural: "grpcroutes", Namespaced: true, New: func() Object { return new(GRPCRoute) }},
		{Name: "TLSRoute", APIVersion: GatewayAPIVersion, Older: older("v1alpha2", "v1alpha3"), Plural: "tlsroutes", Namespaced: true, New: func() Object { return new(TLSRoute) }},
		{Name: "TCPRoute", APIVersion: GatewayAPIVersion, Older: older("v1alpha2"), Plural: "tcproutes", Namespaced: true, New: func() Object { return new(TCPRoute) }},
		{Name: "ReferenceGrant", APIVersion: GatewayAPIVersion, Older: older("v1alpha2", "v1beta1"), Plural: "referencegrants", Namespaced: true, New: func() Object { return new(ReferenceGrant) }},
		{Name: "FaultInjection", APIVersion: APIVersion, Plural: "faultinjections", Namespaced: true, New: func() Object { return new(FaultInjection) }},
		{Name: "DirectResponse", APIVersion: APIVersion, Plural: "directresponses", Namespaced: true, New: func() Object { return new(DirectResponse) }},
		{Name: "TrafficPolicy", APIVersion: APIVersion, Plural: "trafficpolicies", Namespaced: true, New: func() Object { return new(TrafficPolicy) }},
		{Name: "ExternalService", APIVersion: APIVersion, Plural: "externalservices", Namespaced: true, New: func() Object { return new(ExternalService) }},
		{Name: "AuthorizationPolicy", APIVersion: APIVersion, Plural: "authorizationpolicies", Namespaced: true, New: func() Object { return new(AuthorizationPolicy) }},
		{Name: "AuthenticationPolicy", APIVersion: APIVersion, Plural: "authenticationpolicies", Namespaced: true, New: func() Object { return new(AuthenticationPolicy) }},
		{Name: InferencePoolKind, APIVersion: InferenceAPIVersion, Plural: "inferencepools", Namespaced: true, New: func() Object { return new(InferencePool) }},
		{Name: "MeshConfig", APIVersion: APIVersion, Plural: "meshconfigs", New: func() Object { return new(MeshConfig) }},
	}
}

func older(versions ...string) []string {
	for i := range versions {
		versions[i] = GatewayGroup + "/" + versions[i]
	}
	return versions
}

// Versions of the API groups.
const (
	APIVersion        = "tulle.dev/v1alpha1"
	GatewayAPIVersion = "gateway.networking.k8s.io/v1"
	GatewayGroup      = "gateway.networking.k8s.io"
	TulleGroup        = "tulle.dev"
)

// FindKind answers the kind that a user calls name: in any case, singular or plural.
func FindKind(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOf answers the kind of an object.
func KindOf(o Object) Kind {
	for _, k := range Kinds() {
		if reflect.TypeOf(o) == reflect.TypeOf(k.New()) {
			return k
		}
	}
	return Kind{}
}

// Meta answers the metadata of an object, for reading and changing.
func Meta(o Object) *ObjectMeta {
	if a, ok := o.(metav1.ObjectMetaAccessor); ok {
		if m, ok := a.GetObjectMeta().(*ObjectMeta); ok {
			return m
		}
	}
	return nil
}

// FieldError is one thing wrong with an object.
type FieldError struct {
	Path    string // "spec.rules[0].matches[1].path.type"; "" is the object
	Message string // what is wrong, and what to write instead
}

// Error answers path and message in one line.
func (e FieldError) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}
