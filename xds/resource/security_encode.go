package resource

import (
	"reflect"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// EncodeSecurity makes the tulle.v1 message of what a workload's proxy enforces.
func EncodeSecurity(s *model.Security) (*tullepb.Security, error) {
	m := &tullepb.Security{}
	if err := writeStruct(m.ProtoReflect(), reflect.ValueOf(s).Elem()); err != nil {
		return nil, err
	}
	return m, nil
}

// EncodeTrust makes the tulle.v1 message of whom the mesh believes.
func EncodeTrust(t *model.Trust) (*tullepb.Trust, error) {
	m := &tullepb.Trust{}
	if err := writeStruct(m.ProtoReflect(), reflect.ValueOf(t).Elem()); err != nil {
		return nil, err
	}
	return m, nil
}
