// Package envoy reads Envoy's own configuration into the model: listeners, routes, clusters, endpoints and secrets,
// within the subset of docs/reference/xds.md. A field that is set and that Tulle does not run is refused with its path,
// never ignored; the few that are accepted without effect are in one table with the reason (fields.go), from which
// the reference is generated. Pure; nothing that is passed in is kept or changed. Start reading at Bootstrap
// (bootstrap.go).
package envoy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tulle-mesh/tulle/model"
)

// RefusedError is the answer for configuration that is wrong, or asks for what Tulle does not run.
type RefusedError struct {
	Field string // path of the field: "static_resources.listeners[0].filter_chains[1].filters"
	Why   string
}

func (e *RefusedError) Error() string {
	if e.Field == "" {
		return e.Why
	}
	return e.Field + ": " + e.Why
}

func refuse(path, format string, args ...any) error {
	return &RefusedError{Field: path, Why: fmt.Sprintf(format, args...)}
}

const notRun = "is not run by Tulle (docs/reference/xds.md)"

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// known refuses every field of m that is set and not in its table.
func known(path string, m proto.Message) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	r := m.ProtoReflect()
	table, ok := fields[r.Descriptor().FullName()]
	if !ok {
		return refuse(path, "%s %s", r.Descriptor().Name(), notRun)
	}
	var err error
	r.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if _, ok := table.find(string(fd.Name())); ok {
			return true
		}
		err = refuse(join(path, string(fd.Name())), notRun)
		return false
	})
	if err == nil && len(r.GetUnknown()) > 0 {
		err = refuse(path, "holds a field that this version does not know")
	}
	return err
}

// unpack fills m from a; the type has to be exactly m's.
func unpack(path string, a *anypb.Any, m proto.Message) error {
	want := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	if a == nil {
		return refuse(path, "is missing; it has to be a %s", want)
	}
	if a.GetTypeUrl() != want {
		return refuse(path, "%s %s; %s is", clip(a.GetTypeUrl()), notRun, want)
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return refuse(path, "%s", clip(err.Error()))
	}
	return nil
}

// is reports whether a holds an m.
func is(a *anypb.Any, m proto.Message) bool {
	return a.GetTypeUrl() == "type.googleapis.com/"+string(m.ProtoReflect().Descriptor().FullName())
}

// duration reads a duration of at least 0; nil is def.
func duration(path string, d *durationpb.Duration, def time.Duration) (time.Duration, error) {
	if d == nil {
		return def, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, refuse(path, "is not a valid duration")
	}
	v := d.AsDuration()
	if back := durationpb.New(v); v < 0 || back.GetSeconds() != d.GetSeconds() {
		return 0, refuse(path, "is negative or too long")
	}
	return v, nil
}

// durations reads several; the first error counts.
type durationField struct {
	to   *time.Duration
	name string
	from *durationpb.Duration
	def  time.Duration
}

func durations(path string, list []durationField) error {
	for _, f := range list {
		v, err := duration(join(path, f.name), f.from, f.def)
		if err != nil {
			return err
		}
		*f.to = v
	}
	return nil
}

func percent(p *typev3.Percent, def uint32) uint32 {
	if p == nil {
		return def
	}
	return uint32(p.GetValue())
}

// address reads an address and port.
func address(path string, a *corev3.Address) (netip.AddrPort, error) {
	s := a.GetSocketAddress()
	if s == nil {
		return netip.AddrPort{}, refuse(path, "has to be a socket_address")
	}
	if err := known(path, a); err != nil {
		return netip.AddrPort{}, err
	}
	path = join(path, "socket_address")
	if err := known(path, s); err != nil {
		return netip.AddrPort{}, err
	}
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		return netip.AddrPort{}, refuse(join(path, "address"), "%q is not an IP address", clip(s.GetAddress()))
	}
	port, err := portOf(path, s)
	return netip.AddrPortFrom(ip, port), err
}

func portOf(path string, s *corev3.SocketAddress) (uint16, error) {
	if s.GetProtocol() != corev3.SocketAddress_TCP {
		return 0, refuse(join(path, "protocol"), "%s %s", s.GetProtocol(), notRun)
	}
	if s.GetPortValue() > 65535 {
		return 0, refuse(join(path, "port_value"), "%d is not a port", s.GetPortValue())
	}
	return uint16(s.GetPortValue()), nil
}

func prefixes(path string, list []*corev3.CidrRange) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, c := range list {
		p := at(path, i)
		if err := known(p, c); err != nil {
			return nil, err
		}
		ip, err := netip.ParseAddr(c.GetAddressPrefix())
		if err != nil {
			return nil, refuse(join(p, "address_prefix"), "%q is not an IP address", clip(c.GetAddressPrefix()))
		}
		prefix, err := ip.Prefix(int(c.GetPrefixLen().GetValue()))
		if err != nil {
			return nil, refuse(join(p, "prefix_len"), "%d does not fit %s", c.GetPrefixLen().GetValue(), ip)
		}
		out = append(out, prefix)
	}
	return out, nil
}

// material reads bytes or the file that holds them.
func material(path string, d *corev3.DataSource) (model.Material, error) {
	if d == nil {
		return model.Material{}, nil
	}
	if err := known(path, d); err != nil {
		return model.Material{}, err
	}
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		return model.Material{File: s.Filename}, nil
	case *corev3.DataSource_InlineBytes:
		return model.Material{Bytes: s.InlineBytes}, nil
	case *corev3.DataSource_InlineString:
		return model.Material{Bytes: []byte(s.InlineString)}, nil
	}
	return model.Material{}, refuse(path, "names nothing")
}

// overADS refuses configuration from anywhere else than the one stream.
func overADS(path string, c *corev3.ConfigSource) error {
	if err := known(path, c); err != nil {
		return err
	}
	if c.GetAds() == nil {
		return refuse(path, "is not ads: {}; other sources are not run by Tulle")
	}
	return nil
}

// clip keeps foreign text in errors short and on one line.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\n", " "), "?")
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
