package envoy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3" // is known, and refused
)

const types = `"@type": "type.googleapis.com/envoy.`

// routeOf decodes one route, with what stands at the levels above it.
func routeOf(t *testing.T, route, host, table string) model.Route {
	t.Helper()
	v, err := read(t, "routes", `{"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [`+route+`]`+host+`}]`+table+`}`)
	if err != nil {
		t.Fatal(err)
	}
	return v.(*model.RouteTable).Hosts[0].Routes[0]
}

func TestRedirectDecoded(t *testing.T) {
	for text, want := range map[string]model.Redirect{
		`{}`:                        {Status: 301},
		`{"https_redirect": true}`:  {Status: 301, Scheme: "https"},
		`{"https_redirect": false}`: {Status: 301},
		`{"scheme_redirect": "HTTPS", "port_redirect": 8443, "host_redirect": "a", "response_code": "FOUND"}`: {Status: 302, Scheme: "https", Port: 8443, Host: "a"},
		`{"path_redirect": "/x?y", "strip_query": true, "response_code": "SEE_OTHER"}`:                        {Status: 303, Change: model.PathFull, Path: "/x?y", StripQuery: true},
		`{"prefix_rewrite": "/x", "response_code": "TEMPORARY_REDIRECT"}`:                                     {Status: 307, Change: model.PathPrefixed, Path: "/x"},
		`{"regex_rewrite": {"pattern": {"regex": "(a)"}, "substitution": "\\1"}, "response_code": "PERMANENT_REDIRECT"}`: {Status: 308,
			Change: model.PathPattern, Pattern: "(a)", Path: `\1`},
	} {
		want.AsEnvoy = true
		if got := routeOf(t, `{`+anyRoute+`, "redirect": `+text+`}`, "", "").Redirect; *got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
	if r := routeOf(t, `{`+anyRoute+`, `+toC+`, "regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b"}}}`, "", "").Rewrite; r.Pattern != "a" || r.Replacement != "b" || r.HasPrefix {
		t.Errorf("%+v", r)
	}
}

func TestMirrorsDecoded(t *testing.T) {
	const two = `"request_mirror_policies": [{"cluster": "m", "runtime_fraction": {"default_value": {"numerator": 5}}}, {"cluster": "n", "disable_shadow_host_suffix_append": true}, {"cluster": "never", "runtime_fraction": {"default_value": {}}}]`
	want := []model.Mirror{{Cluster: model.Free("m"), Fraction: 50_000, Suffix: true}, {Cluster: model.Free("n")}}
	for _, r := range []model.Route{routeOf(t, `{`+anyRoute+`, `+toC+`, `+two+`}}`, "", ""), routeOf(t, `{`+anyRoute+`, `+toC+`}}`, ", "+two, ""),
		routeOf(t, `{`+anyRoute+`, `+toC+`}}`, "", ", "+two)} {
		if !reflect.DeepEqual(r.Mirrors, want) {
			t.Errorf("%+v", r.Mirrors)
		}
	}
	if r := routeOf(t, `{`+anyRoute+`, `+toC+`, "request_mirror_policies": [{"cluster": "x"}]}}`, ", "+two, ""); len(r.Mirrors) != 1 || r.Mirrors[0].Cluster != model.Free("x") {
		t.Errorf("the nearest level does not count: %+v", r.Mirrors)
	}
	if r := routeOf(t, `{`+anyRoute+`, "redirect": {}}`, ", "+two, ""); r.Mirrors != nil {
		t.Errorf("a redirect is mirrored: %+v", r.Mirrors)
	}
}

// perFilter is typed_per_filter_config with one filter.
func perFilter(name, kind, rest string) string {
	return `, "typed_per_filter_config": {"` + name + `": {` + types + kind + `"` + rest + `}}`
}

func TestCORSDecoded(t *testing.T) {
	const kind = "extensions.filters.http.cors.v3.CorsPolicy"
	config := perFilter("envoy.filters.http.cors", kind, `, "allow_origin_string_match": [{"exact": "https://a"}, {"exact": "*"}, {"prefix": "https://b."}, {"suffix": ".c", "ignore_case": true}, {"contains": "d"}, {"safe_regex": {"regex": "e+"}}],
		"allow_methods": "GET, PUT", "allow_headers": "x-a,x-b", "expose_headers": "*", "max_age": "60", "allow_credentials": true, "filter_enabled": {"default_value": {"numerator": 100}}`)
	want := &model.CORS{Origins: []model.OriginMatch{{Exact: "https://a"}, {Any: true}, {Regex: `https://b\..*`}, {Regex: `(?i).*\.c`}, {Regex: ".*d.*"}, {Regex: "e+"}},
		Methods: []string{"GET", "PUT"}, Headers: []string{"x-a", "x-b"}, Expose: []string{"*"}, MaxAge: time.Minute, Credentials: true, Forward: true}
	plain := `{` + anyRoute + `, ` + toC + `}`
	for _, r := range []model.Route{routeOf(t, plain+config+`}`, "", ""), routeOf(t, plain+`}`, config, ""), routeOf(t, plain+`}`, "", config)} {
		if !reflect.DeepEqual(r.CORS, want) {
			t.Errorf("%+v", r.CORS)
		}
	}
	off := perFilter("envoy.filters.http.cors", kind, `, "filter_enabled": {"default_value": {}}`)
	if r := routeOf(t, plain+off+`}`, config, ""); r.CORS != nil {
		t.Errorf("%+v", r.CORS)
	}
	off = perFilter("envoy.filters.http.cors", "config.route.v3.FilterConfig", `, "disabled": true`)
	if r := routeOf(t, plain+off+`}`, config, ""); r.CORS != nil {
		t.Errorf("%+v", r.CORS)
	}
	zero := perFilter("c", "config.route.v3.FilterConfig", `, "config": {`+types+kind+`", "max_age": "0", "forward_not_matching_preflights": false}`)
	if c := routeOf(t, plain+zero+`}`, config, "").CORS; c == nil || c.MaxAge >= 0 || c.Forward || c.Origins != nil {
		t.Errorf("%+v", c)
	}
}

func TestFaultDecoded(t *testing.T) {
	const kind = "extensions.filters.http.fault.v3.HTTPFault"
	plain := `{` + anyRoute + `, ` + toC + `}`
	for text, want := range map[string]model.Fault{
		``: {},
		`, "delay": {"fixed_delay": "2s", "percentage": {"numerator": 10}}`:                                        {Delay: 2 * time.Second, DelayShare: 100_000},
		`, "delay": {"fixed_delay": "2s"}`:                                                                         {Delay: 2 * time.Second},
		`, "abort": {"http_status": 418, "percentage": {"numerator": 7, "denominator": "MILLION"}}`:                {Status: 418, AbortShare: 7},
		`, "abort": {"grpc_status": 8, "percentage": {"numerator": 7, "denominator": "TEN_THOUSAND"}}`:             {Status: 429, GRPC: 8, AbortShare: 700},
		`, "response_rate_limit": {"fixed_limit": {"limit_kbps": 2}, "percentage": {"numerator": 200}}`:            {Rate: 2048, RateShare: 1_000_000},
		`, "headers": [{"name": "X-A", "string_match": {"exact": "b"}}], "disable_downstream_cluster_stats": true`: {Headers: []model.FieldMatch{{Name: "x-a", Value: "b"}}},
	} {
		if got := routeOf(t, plain+perFilter("envoy.filters.http.fault", kind, text)+`}`, "", "").Fault; !reflect.DeepEqual(got, &want) {
			t.Errorf("%s: %+v", text, got)
		}
	}
	off := perFilter("envoy.filters.http.fault", "config.route.v3.FilterConfig", `, "disabled": true`)
	some := perFilter("envoy.filters.http.fault", kind, `, "abort": {"http_status": 418}`)
	if got := routeOf(t, plain+off+`}`, some, "").Fault; !reflect.DeepEqual(got, &model.Fault{}) {
		t.Errorf("%+v", got)
	}
}

const (
	sessionCookie = `{` + types + `extensions.http.stateful_session.cookie.v3.CookieBasedSessionState", "cookie": {"name": "s", "ttl": "60s", "path": "/p"}}`
	sessionHeader = `{` + types + `extensions.http.stateful_session.header.v3.HeaderBasedSessionState", "name": "X-Session"}`
)

func TestSessionDecoded(t *testing.T) {
	const kind = "extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
	plain := `{` + anyRoute + `, ` + toC + `}`
	for text, want := range map[string]model.Session{
		`, "disabled": true`: {},
		`, "stateful_session": {"session_state": {"name": "c", "typed_config": ` + sessionCookie + `}}`: {Cookie: "s", Path: "/p", Lifetime: time.Minute, Absolute: time.Minute},
		`, "stateful_session": {"session_state": {"name": "h", "typed_config": ` + sessionHeader + `}}`: {Header: "X-Session"},
		`, "stateful_session": {}`: {},
	} {
		if got := routeOf(t, plain+perFilter("envoy.filters.http.stateful_session", kind, text)+`}`, "", "").Session; *got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// chainOf is a listener with these HTTP filters before the router.
func chainOf(filters string) string {
	return `{"address": {"socket_address": {"address": "::", "port_value": 1}}, "filter_chains": [{"filters": [{"name": "h", "typed_config": {` + types + `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"route_config": {}, "http_filters": [` + filters + `{"name": "r", "typed_config": {` + types + `extensions.filters.http.router.v3.Router"}}]}}]}]}`
}

func TestActionFilters(t *testing.T) {
	v, err := read(t, "listener", chainOf(`{"name": "c", "typed_config": {`+types+`extensions.filters.http.cors.v3.Cors"}}, {"name": "f", "typed_config": {`+types+`extensions.filters.http.fault.v3.HTTPFault", "abort": {"http_status": 500}}},
		{"name": "s", "typed_config": {`+types+`extensions.filters.http.stateful_session.v3.StatefulSession", "session_state": {"name": "c", "typed_config": `+sessionCookie+`}}},`))
	if err != nil {
		t.Fatal(err)
	}
	h := v.(model.Listener).Chains[0].HTTP
	if !h.CORS || h.Fault == nil || h.Fault.Status != 500 || h.Session == nil || h.Session.Cookie != "s" {
		t.Errorf("%+v", h)
	}
	if v, err = read(t, "listener", chainOf("")); err != nil {
		t.Fatal(err)
	}
	if h := v.(model.Listener).Chains[0].HTTP; h.CORS || h.Fault != nil || h.Session != nil {
		t.Errorf("%+v", h)
	}
}

func TestActionsRefused(t *testing.T) {
	const r = "virtual_hosts[0].routes[0]."
	plain := `{` + anyRoute + `, ` + toC + `}`
	per := func(name, kind, rest string) string { return plain + perFilter(name, kind, rest) + `}` }
	const policy, faults, sessions = "extensions.filters.http.cors.v3.CorsPolicy", "extensions.filters.http.fault.v3.HTTPFault", "extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
	for _, c := range []struct{ kind, text, want string }{
		{"route", `{` + anyRoute + `, "redirect": {"port_redirect": 65536}}`, r + "redirect.port_redirect: 65536"},
		{"route", `{` + anyRoute + `, "redirect": {"regex_rewrite": {"pattern": {"regex": "("}}}}`, r + "redirect.regex_rewrite.pattern.regex: is not RE2"},
		{"route", `{` + anyRoute + `, "redirect": {"path_rewrite": "/%REQ(a)%"}}`, r + "redirect.path_rewrite: is not run"},
		{"route", `{` + anyRoute + `, ` + toC + `, "regex_rewrite": {"pattern": {"regex": "(a)"}, "substitution": "\\2"}}}`, r + `route.regex_rewrite.substitution: "\\2": \0 to \1`},
		{"route", `{` + anyRoute + `, ` + toC + `, "regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "\\"}}}`, r + `route.regex_rewrite.substitution: `},
		{"route", `{` + anyRoute + `, ` + toC + `, "prefix_rewrite": "/", "regex_rewrite": {"pattern": {"regex": "a"}}}}`, r + "route.regex_rewrite: and prefix_rewrite"},
		{"route", `{` + anyRoute + `, ` + toC + `, "request_mirror_policies": [{}]}}`, r + "route.request_mirror_policies[0].cluster: is missing"},
		{"route", `{` + anyRoute + `, ` + toC + `, "request_mirror_policies": [{"cluster_header": "x"}]}}`, r + "route.request_mirror_policies[0].cluster_header: is not run"},
		{"route", per("x", policy, `, "max_age": "1h"`), r + `typed_per_filter_config.x.max_age: "1h"`},
		{"route", per("x", policy, `, "filter_enabled": {"default_value": {"numerator": 5}}`), r + "typed_per_filter_config.x.filter_enabled: of a part"},
		{"route", per("x", policy, `, "shadow_enabled": {"default_value": {"numerator": 5}}`), r + "typed_per_filter_config.x.shadow_enabled: is not run"},
		{"route", per("x", faults, `, "delay": {"header_delay": {}}`), r + "typed_per_filter_config.x.delay.header_delay: is not run"},
		{"route", per("x", faults, `, "delay": {}`), r + "typed_per_filter_config.x.delay.fixed_delay: is missing"},
		{"route", per("x", faults, `, "delay": {"fixed_delay": "0s"}`), r + "typed_per_filter_config.x.delay.fixed_delay: is not more than 0"},
		{"route", per("x", faults, `, "abort": {"http_status": 199}`), r + "typed_per_filter_config.x.abort.http_status: 199"},
		{"route", per("x", faults, `, "abort": {"grpc_status": 17}`), r + "typed_per_filter_config.x.abort.grpc_status: 17"},
		{"route", per("x", faults, `, "abort": {}`), r + "typed_per_filter_config.x.abort: has neither"},
		{"route", per("x", faults, `, "response_rate_limit": {}`), r + "typed_per_filter_config.x.response_rate_limit.fixed_limit.limit_kbps: is missing"},
		{"route", per("x", faults, `, "max_active_faults": 3`), r + "typed_per_filter_config.x.max_active_faults: is not run"},
		{"route", per("x", sessions, `, "stateful_session": {"strict": true}`), r + "typed_per_filter_config.x.stateful_session.strict: is not run"},
		{"route", per("x", sessions, `, "stateful_session": {"session_state": {"name": "c", "typed_config": {`+types+`extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"}}}`), r + "typed_per_filter_config.x.stateful_session.session_state.typed_config.cookie.name: "},
		{"route", per("x", sessions, `, "stateful_session": {"session_state": {"name": "c", "typed_config": {`+types+`extensions.filters.http.router.v3.Router"}}}`), r + "typed_per_filter_config.x.stateful_session.session_state.typed_config: \"type"},
		{"route", per("x", "config.route.v3.FilterConfig", `, "disabled": true`), r + "typed_per_filter_config.x: disables a filter"},
		{"route", per("x", "config.route.v3.FilterConfig", ``), r + "typed_per_filter_config.x: has neither"},
		{"route", per("x", "extensions.filters.http.router.v3.Router", ``), r + `typed_per_filter_config.x: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" is not run`},
		{"listener", chainOf(`{"name": "a", "typed_config": {` + types + `extensions.filters.http.ext_authz.v3.ExtAuthz"}},`), `filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" is not run`},
		{"listener", chainOf(strings.Repeat(`{"name": "c", "typed_config": {`+types+`extensions.filters.http.cors.v3.Cors"}},`, 2)), "filter_chains[0].filters[0].typed_config.http_filters[1].typed_config: a second"},
	} {
		_, err := read(t, c.kind, c.text)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, expected %s…", c.text, err, c.want)
		}
	}
}
