package filter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/filter"
	"github.com/tulle-mesh/tulle/proxy/message"
)

func request() *message.Head {
	h := &message.Head{Authority: []byte("cart")}
	for _, f := range []string{"X-A=1", "x-b=2", "x-a=3", "Accept=*/*"} {
		n, v, _ := strings.Cut(f, "=")
		h.Add([]byte(n), []byte(v))
	}
	return h
}

func show(h *message.Head) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s|", h.Authority)
	for _, f := range h.Fields {
		fmt.Fprintf(&b, "%s=%s;", f.Name, f.Value)
	}
	return b.String()
}

func TestHeaders(t *testing.T) {
	pair := func(n, v string) []model.Header { return []model.Header{{Name: n, Value: v}} }
	for _, c := range []struct {
		name   string
		change model.HeaderChange
		want   string
	}{
		{"nothing", model.HeaderChange{}, "cart|X-A=1;x-b=2;x-a=3;Accept=*/*;"},
		{"remove every line", model.HeaderChange{Remove: []string{"x-A"}}, "cart|x-b=2;Accept=*/*;"},
		{"set replaces all lines, in place", model.HeaderChange{Set: pair("x-A", "9")}, "cart|x-A=9;x-b=2;Accept=*/*;"},
		{"set what is not there", model.HeaderChange{Set: pair("X-New", "9")}, "cart|X-A=1;x-b=2;x-a=3;Accept=*/*;X-New=9;"},
		{"add", model.HeaderChange{Add: pair("x-b", "9")}, "cart|X-A=1;x-b=2;x-a=3;Accept=*/*;x-b=9;"},
		{"remove, then set, then add", model.HeaderChange{Remove: []string{"x-b"}, Set: pair("x-b", "1"), Add: pair("x-b", "2")}, "cart|X-A=1;x-a=3;Accept=*/*;x-b=1;x-b=2;"},
		{"host is the authority", model.HeaderChange{Set: pair("Host", "other")}, "other|X-A=1;x-b=2;x-a=3;Accept=*/*;"},
		{"framing is not for users", model.HeaderChange{Set: pair("Content-Length", "1"), Add: pair("transfer-encoding", "chunked"), Remove: []string{"Host", "Connection"}}, "cart|X-A=1;x-b=2;x-a=3;Accept=*/*;"},
		{"no pseudo-header, no empty name", model.HeaderChange{Set: pair(":path", "/"), Add: pair("", "x")}, "cart|X-A=1;x-b=2;x-a=3;Accept=*/*;"},
	} {
		h := request()
		filter.Request([]model.Filter{{Kind: model.FilterRequestHeaders, Headers: c.change}}, h)
		if got := show(h); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestEachFilterHasItsSide(t *testing.T) {
	filters := []model.Filter{
		{Kind: model.FilterResponseHeaders, Headers: model.HeaderChange{Set: []model.Header{{Name: "host", Value: "r"}, {Name: "x-r", Value: "1"}}}},
		{Kind: model.FilterRequestHeaders, Headers: model.HeaderChange{Set: []model.Header{{Name: "x-q", Value: "1"}}}},
	}
	q, r := request(), &message.Head{Status: 200}
	filter.Request(filters, q)
	filter.Response(filters, r)
	if q.Has("x-r") || !q.Has("x-q") || !r.Has("x-r") || r.Has("x-q") || r.Authority != nil {
		t.Errorf("request %s, response %s", show(q), show(r))
	}
}

func TestNoAllocation(t *testing.T) {
	filters := []model.Filter{{Kind: model.FilterRequestHeaders, Headers: model.HeaderChange{
		Set: []model.Header{{Name: "X-A", Value: "1"}}, Add: []model.Header{{Name: "X-New", Value: "2"}}, Remove: []string{"Accept"},
	}}}
	h, from := &message.Head{Fields: make([]message.Field, 0, 16)}, request()
	if n := testing.AllocsPerRun(1000, func() {
		h.Fields = append(h.Fields[:0], from.Fields...)
		filter.Request(filters, h)
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}
