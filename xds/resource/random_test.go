package resource_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
)

// random draws a value of any noun of the model with anything in every one of its fields, so that a field that is new
// and does not travel is found without a word here. What Envoy's messages or the engine would refuse is not drawn.
func random[T any](t *rapid.T) T {
	var v T
	fill(t, reflect.ValueOf(&v).Elem(), "")
	return v
}

var (
	label = rapid.StringMatching(`x[a-z0-9-]{0,6}`)
	text  = rapid.String().Filter(func(s string) bool {
		return strings.ToValidUTF8(s, "") == s && !strings.ContainsAny(s, "\r\n\x00")
	})
	pattern = rapid.SampledFrom([]string{".*", "a|b", "/v[12]/.+"})
)

// last is the last value of each enumeration.
var last = map[reflect.Type]uint64{
	reflect.TypeFor[model.Protocol](): 7, reflect.TypeFor[model.PathKind](): 2, reflect.TypeFor[model.FieldMatchKind](): 5, reflect.TypeFor[model.FilterKind](): 1,
	reflect.TypeFor[model.HashKind](): 3, reflect.TypeFor[model.PathChangeKind](): 3, reflect.TypeFor[model.Class](): 2, reflect.TypeFor[model.RateKeyKind](): 5,
	reflect.TypeFor[model.Discovery](): 4, reflect.TypeFor[model.DNSFamily](): 4, reflect.TypeFor[model.LocalityMode](): 2, reflect.TypeFor[model.LBPolicy](): 6, reflect.TypeFor[model.SubsetFallback](): 2,
	reflect.TypeFor[model.UpstreamVersion](): 4, reflect.TypeFor[model.Priority](): 1, reflect.TypeFor[model.HealthCheckKind](): 2, reflect.TypeFor[model.Health](): 4,
	reflect.TypeFor[model.TLSVersion](): 2, reflect.TypeFor[model.SANKind](): 4, reflect.TypeFor[model.StringMatchKind](): 4, reflect.TypeFor[model.RetryOn](): 255,
	reflect.TypeFor[model.MTLSMode](): 2, reflect.TypeFor[model.Action](): 3, reflect.TypeFor[model.ConditionKind](): 3, reflect.TypeFor[model.EgressMode](): 1,
}

func fill(t *rapid.T, v reflect.Value, name string) {
	switch v.Addr().Interface().(type) {
	case *netip.Addr:
		return // as the test likes
	case *netip.AddrPort:
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip")
		if rapid.Bool().Draw(t, "v4") {
			b = b[:4]
		}
		a, _ := netip.AddrFromSlice(b)
		v.Set(reflect.ValueOf(netip.AddrPortFrom(a, rapid.Uint16Min(1).Draw(t, "port"))))
		return
	}
	if v.Kind() != reflect.Struct && known(t, v, name) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), v.Type().Field(i).Name)
		}
		repair(t, v.Addr().Interface())
	case reflect.Pointer:
		if rapid.Bool().Draw(t, name) {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), name)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if b := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, name); len(b) > 0 {
				v.SetBytes(b)
			}
			return
		}
		// nil, never empty: an empty list and none are the same on the wire.
		if n := rapid.IntRange(0, 2).Draw(t, name); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), name)
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1000, 1000).Draw(t, name))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		most := uint64(1<<v.Type().Bits() - 1)
		v.SetUint(rapid.Uint64Range(0, min(most, 1<<40)).Draw(t, name))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0, 100).Draw(t, name))
	case reflect.String:
		v.SetString(label.Draw(t, name))
	default:
		panic(fmt.Sprintf("no %s is drawn", v.Type()))
	}
}

// known draws what is not just any value of its type.
func known(t *rapid.T, v reflect.Value, name string) bool {
	most, isEnum := last[v.Type()]
	switch {
	case isEnum:
		v.SetUint(rapid.Uint64Range(0, most).Draw(t, name))
	case v.Type() == reflect.TypeFor[time.Duration]():
		v.SetInt(rapid.Int64Range(0, 1<<50).Draw(t, name))
	case v.Kind() == reflect.Int && (name == "Status" || name == "From" || name == "To"):
		v.SetInt(rapid.Int64Range(200, 599).Draw(t, name))
	case v.Kind() == reflect.Int && name == "Rule":
		v.SetInt(rapid.Int64Range(0, 20).Draw(t, name))
	case v.Kind() == reflect.Uint32 && name == "Fraction":
		v.SetUint(rapid.Uint64Range(0, 999_999).Draw(t, name))
	case v.Kind() == reflect.Uint32 && (strings.HasPrefix(name, "Enforce") || name == "MaxPercent" || name == "FailureThreshold"):
		v.SetUint(rapid.Uint64Range(0, 100).Draw(t, name))
	case v.Kind() == reflect.Uint32 && name == "Slots":
		v.SetUint(rapid.Uint64Range(1, model.MaxSlots).Draw(t, name))
	case v.Kind() == reflect.String && name == "Label":
		v.SetString("s" + label.Draw(t, name))
	case v.Kind() == reflect.Uint32 && name == "Weight":
		v.SetUint(rapid.Uint64Range(1, 1000).Draw(t, name))
	case v.Kind() == reflect.Uint16 && name == "Port":
		v.SetUint(rapid.Uint64Range(1, 65535).Draw(t, name))
	case v.Kind() == reflect.String && name == "Value", v.Kind() == reflect.String && name == "Identity":
		v.SetString(text.Draw(t, name))
	case v.Kind() == reflect.String && (name == "Regex" || name == "Pattern"):
		v.SetString(pattern.Draw(t, name))
	case v.Kind() == reflect.String && (strings.HasSuffix(name, "IPs") || name == "Addresses"):
		v.SetString(rapid.SampledFrom([]string{"10.0.0.0/8", "fd00::/8", "192.0.2.7/32"}).Draw(t, name))
	case v.Kind() == reflect.String && name == "Path":
		v.SetString("/" + rapid.StringMatching(`[a-c/%?#]{0,5}`).Draw(t, name))
	default:
		return false
	}
	return true
}

// repair takes back what contradicts itself.
func repair(t *rapid.T, v any) {
	switch v := v.(type) {
	case *model.FieldMatch:
		if v.Regex = v.Regex && v.Kind == model.FieldValue; v.Regex {
			v.Value = pattern.Draw(t, "re")
		}
	case *model.StringMatch:
		if v.Kind == model.StringRegex {
			v.Value = pattern.Draw(t, "re")
		}
	case *model.TrustBundle:
		for i := range v.Roots {
			v.Roots[i] = append(v.Roots[i], byte(i))
		}
	case *model.Match:
		if v.PathKind == model.PathRegex {
			v.Path = pattern.Draw(t, "re")
		}
	case *model.Header:
		if v.Value == "" {
			v.Value = "x"
		}
	case *model.Balancing:
		v.MaxRing = min(max(v.MaxRing, 1024), 8<<20)
		v.MinRing = min(v.MinRing, v.MaxRing)
		v.TableSize = rapid.SampledFrom([]uint64{0, 65537, 251}).Draw(t, "table")
	case *model.HealthCheck:
		for i := range v.Receive {
			v.Receive[i] = append([]byte{1}, v.Receive[i]...)
		}
		v.Path = "/" + label.Draw(t, "path")
		v.Method = rapid.SampledFrom([]string{"", "GET", "HEAD"}).Draw(t, "method")
		for i := range v.Statuses {
			v.Statuses[i] = model.StatusRange{From: 200, To: 201 + i}
		}
	case *model.RouteTable:
		for i := range v.Hosts {
			v.Hosts[i].Domains = []string{fmt.Sprint(label.Draw(t, "domain"), i), fmt.Sprintf("*.x%d", i)}
			if len(v.Hosts) == 1 && rapid.Bool().Draw(t, "all") {
				v.Hosts[i].Domains = []string{"*"}
			}
		}
	case *model.Endpoints:
		for i := range v.Endpoints {
			v.Endpoints[i].Workload = fmt.Sprint(v.Endpoints[i].Workload, i)
		}
		slices.SortFunc(v.Endpoints, func(a, b model.Endpoint) int {
			return strings.Compare(a.Namespace+"\x00"+a.Workload, b.Namespace+"\x00"+b.Workload)
		})
	}
}
