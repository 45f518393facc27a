// Package envoy reads Envoy's own configuration into the model: listeners, routes, clusters, endpoints and secrets,
// within the subset of docs/reference/xds.md. A field that is set and that Tulle does not run is refused with its path,
// never ignored; the few that are accepted without effect are in one table with the reason (fields.go), from which
// the reference is generated. Pure; nothing that is passed in is kept or changed. Start reading at Bootstrap
// (bootstrap.go).
package envoy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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

const (
	notRun = "is not run by Tulle (docs/reference/xds.md)"
	notYet = "is not run by Tulle yet (docs/reference/xds.md)"
)

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// known refuses every field of m, and of the messages in it, that is set and not in its table.
func known(path string, m proto.Message) error { return knownIn(path, m.ProtoReflect()) }

func knownIn(path string, r protoreflect.Message) error {
	name := r.Descriptor().FullName()
	if !r.IsValid() || name.Parent() == "google.protobuf" {
		return nil
	}
	table, ok := fields[name]
	if !ok {
		return refuse(path, "%s %s", name.Name(), notRun)
	}
	if len(r.GetUnknown()) > 0 {
		return refuse(path, "holds a field that this version does not know")
	}
	for i, all := 0, r.Descriptor().Fields(); i < all.Len(); i++ { // in order, so that the same error comes every time
		fd := all.Get(i)
		if !r.Has(fd) {
			continue
		}
		p := join(path, string(fd.Name()))
		why, ok := table.find(string(fd.Name()))
		if !ok && slices.Contains(strings.Fields(table.later), string(fd.Name())) {
			return refuse(p, notYet)
		}
		if !ok {
			return refuse(p, notRun)
		}
		if why != "" {
			continue
		}
		if err := knownValue(p, fd, r.Get(fd)); err != nil {
			return err
		}
	}
	return nil
}

func knownValue(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch {
	case fd.IsMap():
		return nil // of Any: see unpack
	case fd.IsList():
		for i, l := 0, v.List(); i < l.Len(); i++ {
			if err := knownOne(at(path, i), fd, l.Get(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return knownOne(path, fd, v)
}

func knownOne(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return knownIn(path, v.Message())
	case protoreflect.StringKind:
		// Many texts become part of a head or a log; only contents and formats have lines.
		if n := fd.Name(); strings.ContainsAny(v.String(), "\r\n\x00") && n != "inline_string" && n != "text_format" && n != "format" {
			return refuse(path, "holds a line end or NUL")
		}
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByNumber(v.Enum()) == nil {
			return refuse(path, "%d is no value of it", v.Enum())
		}
	}
	return nil
}

// unpack fills m from a, of exactly its type and with nothing unknown in it.
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
	return known(path, m)
}

// foreign refuses an extension that is not run, or that does not say what it is.
func foreign(path string, a *anypb.Any) error {
	if a.GetTypeUrl() == "" {
		return refuse(path, `is missing, or has no "@type"`)
	}
	return refuse(path, "%q %s", clip(a.GetTypeUrl()), notRun)
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

// address reads an address and port.
func address(path string, a *corev3.Address) (netip.AddrPort, error) {
	s := a.GetSocketAddress()
	if s == nil {
		return netip.AddrPort{}, refuse(path, "has to be a socket_address")
	}
	path = join(path, "socket_address")
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
	return portNumber(join(path, "port_value"), s.GetPortValue())
}

func portNumber(path string, n uint32) (uint16, error) {
	if n > 65535 {
		return 0, refuse(path, "%d is not a port", n)
	}
	return uint16(n), nil
}

func prefixes(path string, list []*corev3.CidrRange) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, c := range list {
		p := at(path, i)
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

// byName is overADS for what is asked for by name: how long a first resource is waited for is said once for all.
func byName(path string, c *corev3.ConfigSource) error {
	if c.GetInitialFetchTimeout() != nil {
		return refuse(join(path, "initial_fetch_timeout"), "is run in lds_config and cds_config only, for everything")
	}
	return overADS(path, c)
}

// version3 refuses other versions of the API; AUTO is not said.
func version3(path string, v corev3.ApiVersion) error {
	if v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		return refuse(path, "%s %s", v, notRun)
	}
	return nil
}

// overADS refuses configuration from anywhere else than the one stream.
func overADS(path string, c *corev3.ConfigSource) error {
	if err := version3(join(path, "resource_api_version"), c.GetResourceApiVersion()); err != nil {
		return err
	}
	if c.GetAds() == nil {
		return refuse(path, "is not ads: {}; other sources are not run by Tulle")
	}
	return nil
}

// clip keeps foreign text in errors short and on one line.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
