package resource

import (
	"net/netip"
	"reflect"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// DecodeSecurity reads a packed tulle.v1.Security. What it cannot enforce it refuses: a policy is never left out.
func DecodeSecurity(a *anypb.Any) (*model.Security, error) {
	var m tullepb.Security
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	if unknown(m.ProtoReflect()) {
		return nil, refuse("", "says what this version does not know, and a policy must not be enforced in part: use a newer one")
	}
	out := &model.Security{}
	if err := readStruct("", m.ProtoReflect(), reflect.ValueOf(out).Elem()); err != nil {
		return nil, err
	}
	if out.Name.Name == "" || out.Name.Namespace == "" {
		return nil, refuse("name", "is empty")
	}
	return out, nil
}

// DecodeTrust reads a packed tulle.v1.Trust.
func DecodeTrust(a *anypb.Any) (*model.Trust, error) {
	var m tullepb.Trust
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	out := &model.Trust{}
	if err := readStruct("", m.ProtoReflect(), reflect.ValueOf(out).Elem()); err != nil {
		return nil, err
	}
	return out, nil
}

func validPrefixes(path string, lists ...[]string) error {
	for _, list := range lists {
		for _, s := range list {
			if _, err := netip.ParsePrefix(s); err != nil {
				return refuse(path, "%q is not an address with a length, such as 10.0.0.0/8", clip(s))
			}
		}
	}
	return nil
}

// unknown reports whether a message, or one within it, has fields that this version does not know.
func unknown(m protoreflect.Message) (found bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = unknown(v.List().Get(i).Message())
			}
		default:
			found = unknown(v.Message())
		}
		return !found
	})
	return found
}
