package resource

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// factsKey is the name of Tulle's entry in typed_filter_metadata.
const factsKey = "tulle.v1"

// withFacts answers metadata with facts about every field of want that reading Envoy's message alone gives otherwise
// (got); nil where there is none. want and got point to the same kind of noun. So whatever Envoy's fields say exactly
// travels once, and whatever they do not say travels nevertheless.
func withFacts(want, got any) (*corev3.Metadata, error) {
	facts := &tullepb.Facts{}
	noun, err := nounOf(facts, want)
	if err != nil {
		return nil, err
	}
	w, g := reflect.ValueOf(want).Elem(), reflect.ValueOf(got).Elem()
	for i := range w.NumField() {
		if reflect.DeepEqual(w.Field(i).Interface(), g.Field(i).Interface()) {
			continue
		}
		fd := fieldNamed(noun, w.Type().Field(i).Name)
		if fd == nil {
			return nil, fmt.Errorf("%s.%s does not travel", w.Type().Name(), w.Type().Field(i).Name)
		}
		facts.Fields = append(facts.Fields, uint32(fd.Number()))
		if w.Field(i).IsZero() {
			continue
		}
		if err := writeField(noun, fd, w.Field(i)); err != nil {
			return nil, fmt.Errorf("%s: %w", fd.Name(), err)
		}
	}
	if len(facts.Fields) == 0 {
		return nil, nil
	}
	if err := oneLine("", noun); err != nil {
		return nil, err
	}
	a, err := Pack(facts)
	if err != nil {
		return nil, err
	}
	return &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{factsKey: a}}, nil
}

// oneLine refuses a text of several lines, or with NUL, anywhere in facts: many become part of a head or of a log. Package xds/envoy
// refuses them in Envoy's fields, so they cannot come with facts either; contents are bytes.
func oneLine(path string, m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		p := join(path, string(fd.Name()))
		one := func(p string, v protoreflect.Value) error {
			switch {
			case fd.Message() != nil:
				return oneLine(p, v.Message())
			case fd.Kind() == protoreflect.StringKind && strings.ContainsAny(v.String(), "\r\n\x00"):
				return refuse(p, "holds a line end or NUL")
			}
			return nil
		}
		if !fd.IsList() {
			err = one(p, v)
			return err == nil
		}
		for i := 0; i < v.List().Len() && err == nil; i++ {
			err = one(fmt.Sprintf("%s[%d]", p, i), v.List().Get(i))
		}
		return err == nil
	})
	return err
}

// overlay puts the facts in md, if there are any, over what was read from Envoy's message. Metadata of others is for
// others: it is skipped; and so is a field that only a newer version knows.
func overlay(path string, md *corev3.Metadata, noun any) error {
	a, ok := md.GetTypedFilterMetadata()[factsKey]
	if !ok {
		return nil
	}
	path = join(path, "metadata")
	facts, want := &tullepb.Facts{}, &tullepb.Facts{}
	if err := unpack(a, facts); err != nil {
		return refuse(path, "%v", err)
	}
	empty, err := nounOf(want, noun)
	if err != nil {
		return err
	}
	m := facts.ProtoReflect()
	which := m.WhichOneof(m.Descriptor().Oneofs().ByName("noun"))
	if which == nil || which.Message() != empty.Descriptor() {
		return refuse(path, "holds facts of something else than a %s", empty.Descriptor().Name())
	}
	from, to := m.Get(which).Message(), reflect.ValueOf(noun).Elem()
	if err := oneLine(path, from); err != nil {
		return err
	}
	for _, n := range facts.GetFields() {
		fd := from.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(n))
		if fd == nil {
			continue
		}
		f, ok := modelField(to, fd)
		if !ok {
			continue
		}
		f.SetZero()
		if from.Has(fd) {
			if err := readField(join(path, string(fd.Name())), from, fd, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// nounOf sets the noun in facts that fits a value of the model, and answers it.
func nounOf(facts *tullepb.Facts, of any) (protoreflect.Message, error) {
	switch of.(type) {
	case *model.RouteTable:
		facts.Noun = &tullepb.Facts_Table{Table: &tullepb.RouteTable{}}
		return facts.GetTable().ProtoReflect(), nil
	case *model.Route:
		facts.Noun = &tullepb.Facts_Route{Route: &tullepb.Route{}}
		return facts.GetRoute().ProtoReflect(), nil
	case *model.Cluster:
		facts.Noun = &tullepb.Facts_Cluster{Cluster: &tullepb.Cluster{}}
		return facts.GetCluster().ProtoReflect(), nil
	case *model.Endpoints:
		facts.Noun = &tullepb.Facts_Endpoints{Endpoints: &tullepb.Endpoints{}}
		return facts.GetEndpoints().ProtoReflect(), nil
	case *model.Endpoint:
		facts.Noun = &tullepb.Facts_Endpoint{Endpoint: &tullepb.Endpoint{}}
		return facts.GetEndpoint().ProtoReflect(), nil
	}
	return nil, fmt.Errorf("there are no facts of a %T", of)
}

// sameName reports whether a field of the model ("AppendXFHost") and one of a message ("append_xf_host") have the same name.
func sameName(field string, of protoreflect.Name) bool {
	j := 0
	for i := range len(of) {
		if of[i] == '_' {
			continue
		}
		if j == len(field) || field[j] != of[i] && field[j] != of[i]-('a'-'A') {
			return false
		}
		j++
	}
	return j == len(field)
}

func fieldNamed(m protoreflect.Message, name string) protoreflect.FieldDescriptor {
	for i, all := 0, m.Descriptor().Fields(); i < all.Len(); i++ {
		if sameName(name, all.Get(i).Name()) {
			return all.Get(i)
		}
	}
	return nil
}

func modelField(v reflect.Value, fd protoreflect.FieldDescriptor) (reflect.Value, bool) {
	for i := range v.NumField() {
		if sameName(v.Type().Field(i).Name, fd.Name()) {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// writeStruct copies every field of v that is not empty to the field of m with its name.
func writeStruct(m protoreflect.Message, v reflect.Value) error {
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			continue
		}
		fd := fieldNamed(m, v.Type().Field(i).Name)
		if fd == nil {
			return fmt.Errorf("%s.%s does not travel", v.Type().Name(), v.Type().Field(i).Name)
		}
		if err := writeField(m, fd, v.Field(i)); err != nil {
			return fmt.Errorf("%s: %w", fd.Name(), err)
		}
	}
	return nil
}

func writeField(m protoreflect.Message, fd protoreflect.FieldDescriptor, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if fd.IsList() {
		list := m.Mutable(fd).List()
		for i := range v.Len() {
			if fd.Message() == nil {
				one, err := scalar(v.Index(i))
				if err != nil {
					return err
				}
				list.Append(one)
				continue
			}
			one := list.NewElement()
			if err := writeMessage(one.Message(), v.Index(i)); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
			list.Append(one)
		}
		return nil
	}
	if fd.Message() != nil {
		return writeMessage(m.Mutable(fd).Message(), v)
	}
	one, err := scalar(v)
	if err == nil {
		m.Set(fd, one)
	}
	return err
}

// writeMessage copies a structure, or a list within a list, whose message has it as its only field.
func writeMessage(m protoreflect.Message, v reflect.Value) error {
	if v.Kind() == reflect.Slice {
		return writeField(m, m.Descriptor().Fields().Get(0), v)
	}
	return writeStruct(m, v)
}

func scalar(v reflect.Value) (protoreflect.Value, error) {
	switch v.Kind() {
	case reflect.Bool:
		return protoreflect.ValueOfBool(v.Bool()), nil
	case reflect.Int, reflect.Int64:
		return protoreflect.ValueOfInt64(v.Int()), nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return protoreflect.ValueOfUint32(uint32(v.Uint())), nil
	case reflect.Uint64:
		return protoreflect.ValueOfUint64(v.Uint()), nil
	case reflect.Float64:
		return protoreflect.ValueOfFloat64(v.Float()), nil
	case reflect.String:
		if !utf8.ValidString(v.String()) { // no protobuf string holds it
			return protoreflect.Value{}, fmt.Errorf("%q is not UTF-8", clip(v.String()))
		}
		return protoreflect.ValueOfString(v.String()), nil
	case reflect.Slice:
		return protoreflect.ValueOfBytes(v.Bytes()), nil
	}
	return protoreflect.Value{}, fmt.Errorf("a %s does not travel", v.Type())
}

// readStruct fills v, which is empty, from m.
func readStruct(path string, m protoreflect.Message, v reflect.Value) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f, ok := modelField(v, fd); ok {
			err = readField(join(path, string(fd.Name())), m, fd, f)
		}
		return err == nil
	})
	if err == nil {
		err = valid(path, v.Addr().Interface())
	}
	return err
}

func readField(path string, m protoreflect.Message, fd protoreflect.FieldDescriptor, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if !fd.IsList() {
		return readOne(path, m.Get(fd), v)
	}
	list := m.Get(fd).List()
	switch {
	case list.Len() == 0 && v.Kind() == reflect.Slice:
		return nil
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), list.Len(), list.Len()))
	case list.Len() != v.Len():
		return refuse(path, "%d of them, %d are known to this version", list.Len(), v.Len())
	}
	for i := range list.Len() {
		if err := readOne(fmt.Sprintf("%s[%d]", path, i), list.Get(i), v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func readOne(path string, from protoreflect.Value, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Struct:
		return readStruct(path, from.Message(), v)
	case reflect.Bool:
		v.SetBool(from.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(from.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := from.Uint()
		if most, ok := enums[v.Type()]; v.OverflowUint(n) || ok && n > most {
			return refuse(path, "%d is not known to this version", n)
		}
		v.SetUint(n)
	case reflect.Float64:
		v.SetFloat(from.Float())
	case reflect.String:
		v.SetString(from.String())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(from.Bytes())
			return nil
		}
		m := from.Message()
		return readField(path, m, m.Descriptor().Fields().Get(0), v)
	}
	return nil
}

// enums are the kinds of the model with their last value; one that is newer than this version is refused.
var enums = map[reflect.Type]uint64{
	reflect.TypeFor[model.Protocol]():        uint64(model.LearnedServerFirst),
	reflect.TypeFor[model.PathKind]():        uint64(model.PathRegex),
	reflect.TypeFor[model.FieldMatchKind]():  uint64(model.FieldRange),
	reflect.TypeFor[model.FilterKind]():      uint64(model.FilterResponseHeaders),
	reflect.TypeFor[model.HashKind]():        uint64(model.HashPath),
	reflect.TypeFor[model.PathChangeKind]():  uint64(model.PathPattern),
	reflect.TypeFor[model.Class]():           uint64(model.ClassBatch),
	reflect.TypeFor[model.RateKeyKind]():     uint64(model.RateByFixed),
	reflect.TypeFor[model.Discovery]():       uint64(model.DiscoveryOriginal),
	reflect.TypeFor[model.DNSFamily]():       uint64(model.DNSAll),
	reflect.TypeFor[model.LocalityMode]():    uint64(model.LocalityWeighted),
	reflect.TypeFor[model.LBPolicy]():        uint64(model.LeastUtilized),
	reflect.TypeFor[model.SubsetFallback]():  uint64(model.SubsetDefault),
	reflect.TypeFor[model.UpstreamVersion](): uint64(model.UpstreamDownstream),
	reflect.TypeFor[model.Priority]():        uint64(model.PriorityHigh),
	reflect.TypeFor[model.HealthCheckKind](): uint64(model.CheckGRPC),
	reflect.TypeFor[model.Health]():          uint64(model.Degraded),
	reflect.TypeFor[model.TLSVersion]():      uint64(model.TLS13),
	reflect.TypeFor[model.SANKind]():         uint64(model.SANIP),
	reflect.TypeFor[model.StringMatchKind](): uint64(model.StringRegex),
	reflect.TypeFor[model.MTLSMode]():        uint64(model.ModeDisabled),
	reflect.TypeFor[model.Action]():          uint64(model.ActionAudit),
	reflect.TypeFor[model.ConditionKind]():   uint64(model.ConditionClaim),
	reflect.TypeFor[model.EgressMode]():      uint64(model.EgressRegistry),
	reflect.TypeFor[model.RetryOn]():         uint64(model.RetryGRPC<<1 - 1),
}

// maxRegex bounds a regular expression, in bytes.
const maxRegex = 4096

// valid tries what the engine will compile.
func valid(path string, v any) error {
	switch v := v.(type) {
	case *model.Match:
		if v.PathKind == model.PathRegex {
			return validRegex(path+".path", v.Path)
		}
		if !v.Connect && (v.Path == "" || v.Path[0] != '/') && !v.PathPrefixText {
			return refuse(path+".path", "%q does not begin with /", clip(v.Path))
		}
	case *model.Timeouts:
		if min(v.Request, v.Attempt, v.Idle, v.MaxStream, v.GRPCMax, v.GRPCOffset) < 0 {
			return refuse(path, "one of them is negative")
		}
	case *model.FieldMatch:
		if v.Name == "" {
			return refuse(path+".name", "is empty")
		}
		if v.Regex {
			return validRegex(path+".value", v.Value)
		}
	case *model.Shards:
		if v.Slots == 0 || v.Slots > model.MaxSlots || v.Label == "" {
			return refuse(path, "%d slots by label %q: needs 1 to %d, and a label", v.Slots, clip(v.Label), model.MaxSlots)
		}
	case *model.StringMatch:
		if v.Kind == model.StringRegex {
			return validRegex(path+".value", v.Value)
		}
	case *model.PolicySource:
		return validPrefixes(path, v.IPs, v.NotIPs, v.RemoteIPs, v.NotRemoteIPs)
	case *model.EgressRule:
		return validPrefixes(path+".addresses", v.Addresses)
	case *model.OriginMatch:
		return validRegex(path+".regex", v.Regex)
	case *model.Redirect:
		return validRegex(path+".pattern", v.Pattern)
	case *model.Rewrite:
		return validRegex(path+".pattern", v.Pattern)
	}
	return nil
}

func validRegex(path, expr string) error {
	if len(expr) > maxRegex {
		return refuse(path, "is longer than %d bytes", maxRegex)
	}
	if _, err := regexp.Compile(expr); err != nil {
		return refuse(path, "%s", clip(err.Error()))
	}
	return nil
}
