package route_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// security answers what a service's proxies enforce, after it has been over the wire.
func security(t *testing.T, c compile.Compiler, name model.ServiceName) *model.Security {
	t.Helper()
	s, ok := c.Security(name)
	if !ok {
		t.Fatalf("nothing is known of %s", name)
	}
	m, err := resource.EncodeSecurity(s)
	if err != nil {
		t.Fatal(err)
	}
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := resource.DecodeSecurity(a)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, back) {
		t.Errorf("%s: sent %+v, received %+v", name, s, back)
	}
	return back
}

// securities tells what every service's proxies enforce: what is not empty, by name, as JSON without what is.
func securities(t *testing.T, c compile.Compiler) string {
	var names []model.ServiceName
	for n := range c.Services.(services) {
		if _, external := n.External(); !external {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b model.ServiceName) int { return strings.Compare(a.String(), b.String()) })
	var b strings.Builder
	for _, n := range names {
		v := reflect.ValueOf(*security(t, c, n))
		fmt.Fprintf(&b, "%s\n", n)
		for i := range v.NumField() {
			f := v.Field(i)
			if f.IsZero() || v.Type().Field(i).Name == "Name" {
				continue
			}
			if f.Kind() != reflect.Slice {
				fmt.Fprintf(&b, "  %s: %s\n", v.Type().Field(i).Name, compact(t, f.Interface()))
				continue
			}
			for k := range f.Len() {
				fmt.Fprintf(&b, "  %s: %s\n", v.Type().Field(i).Name, compact(t, f.Index(k).Interface()))
			}
		}
	}
	return b.String()
}

// compact is JSON without what is empty.
func compact(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var any any
	if err := json.Unmarshal(text, &any); err != nil {
		t.Fatal(err)
	}
	any, _ = pruned(any)
	text, err = json.Marshal(any)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func pruned(v any) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if y, keep := pruned(x); keep {
				v[k] = y
			} else {
				delete(v, k)
			}
		}
		return v, len(v) > 0
	case []any:
		for i := range v {
			v[i], _ = pruned(v[i])
		}
		return v, len(v) > 0
	case string:
		return v, v != ""
	case float64:
		return v, v != 0
	case bool:
		return v, v
	}
	return v, v != nil
}

// told is what a line of asks.txt says besides.
type told map[string]string

func (f told) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	v, ok := f[[...]string{"", "?", "cookie:", "claim:"}[kind]+name]
	return v, ok && i == 0
}

// asks answers lines such as "shop/cart GET reviews.default:9080/items/7 x-user=a ip=10.0.0.1"; "connect" as the method is a
// connection that is not HTTP, "nobody" one without identity.
func asks(t *testing.T, c compile.Compiler, text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=>") {
			continue
		}
		fmt.Fprintf(&b, "%s\n=> %s\n", line, decided(t, c, strings.Fields(line)))
	}
	return b.String()
}

func decided(t *testing.T, c compile.Compiler, words []string) string {
	at, path, _ := strings.Cut(words[2], "/")
	service, port, _ := strings.Cut(at, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatalf("%q: %v", words[2], err)
	}
	path, query, _ := strings.Cut(path, "?")
	fields := told{}
	a := &authz.Attributes{Port: uint16(n), Method: words[1], Path: "/" + path, HTTP: words[1] != "connect", Host: service, Fields: fields, Now: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC).Unix()}
	for q := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(q, "=")
		fields["?"+k] = v
	}
	if ns, sa, ok := strings.Cut(words[0], "/"); ok {
		a.TrustDomain, a.Namespace, a.Account = "tulle.local", ns, words[0]
		a.Principal = "spiffe://tulle.local/ns/" + ns + "/sa/" + sa
	}
	for _, w := range words[3:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "ip":
			a.IP = netip.MustParseAddr(v)
		case "remote":
			a.RemoteIP = netip.MustParseAddr(v)
		case "sni":
			a.ServerName = v
		case "token":
			a.Token = v
		case "procedure":
			a.Procedure = v
		case "domain":
			a.TrustDomain = v
		default:
			fields[k] = v
		}
	}
	set, err := authz.Compile(security(t, c, serviceName(service)), []model.Label{{Name: "version", Value: "v1"}}, cel.Compile)
	if err != nil {
		return err.Error()
	}
	v := set.Connection(a)
	if a.HTTP {
		v = set.Request(a)
	}
	out := verdict(v.Allowed, v.By, v.Absent)
	if v.Absent {
		if r, missing := set.Nearest(a, a.HTTP); r != nil {
			out += fmt.Sprintf("; nearest %s %s: %v", r.Policy, r.Name, missing)
		}
	}
	if v.Audit != nil {
		out += "; audit " + v.Audit.Policy
	}
	if v.External != nil {
		out += "; if " + v.Authorizer + " allows"
	}
	if v.Dry {
		out += "; in dry run " + verdict(!v.Allowed, v.DryBy, v.DryAbsent)
	}
	return out
}

func verdict(allowed bool, by *authz.Rule, absent bool) string {
	out := "denied"
	if allowed {
		out = "allowed"
	}
	switch {
	case by != nil:
		return out + " by " + by.Policy + " " + by.Name
	case absent:
		return out + ": nothing allows it"
	}
	return out + ": nothing is about it"
}
