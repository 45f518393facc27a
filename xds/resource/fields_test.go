package resource_test

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// TestEveryFieldTravels names every field of the model that facts.proto has no field for.
func TestEveryFieldTravels(t *testing.T) {
	missing, seen := []string{}, map[reflect.Type]bool{}
	var walk func(v reflect.Type, m protoreflect.MessageDescriptor)
	walk = func(v reflect.Type, m protoreflect.MessageDescriptor) {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice || v.Kind() == reflect.Array {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct || seen[v] {
			return
		}
		seen[v] = true
		for i := range v.NumField() {
			f := v.Field(i)
			if n := v.Name() + "." + f.Name; n == "Endpoint.Address" || n == "Endpoints.Cluster" || n == "Endpoints.Endpoints" {
				continue // always said by Envoy's own
			}
			var fd protoreflect.FieldDescriptor
			for k := range m.Fields().Len() {
				if c := m.Fields().Get(k); strings.EqualFold(strings.ReplaceAll(string(c.Name()), "_", ""), f.Name) {
					fd = c
				}
			}
			if fd == nil {
				missing = append(missing, v.Name()+"."+f.Name+" "+f.Type.String())
			} else if fd.Message() != nil {
				walk(f.Type, fd.Message())
			}
		}
	}
	walk(reflect.TypeFor[model.RouteTable](), (&tullepb.RouteTable{}).ProtoReflect().Descriptor())
	walk(reflect.TypeFor[model.Cluster](), (&tullepb.Cluster{}).ProtoReflect().Descriptor())
	walk(reflect.TypeFor[model.Endpoints](), (&tullepb.Endpoints{}).ProtoReflect().Descriptor())
	walk(reflect.TypeFor[model.Endpoint](), (&tullepb.Endpoint{}).ProtoReflect().Descriptor())
	walk(reflect.TypeFor[model.Security](), (&tullepb.Security{}).ProtoReflect().Descriptor())
	walk(reflect.TypeFor[model.Trust](), (&tullepb.Trust{}).ProtoReflect().Descriptor())
	if len(missing) > 0 {
		t.Errorf("these do not travel; add them to xds/tullepb/facts.proto and run go generate ./xds/tullepb:\n%s", strings.Join(missing, "\n"))
	}
}
