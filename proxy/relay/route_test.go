package relay_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

func TestMatch(t *testing.T) {
	routes := []model.RelayRoute{{Name: "exact", SNI: []string{"a.db.example"}}, {Name: "wild", SNI: []string{"*.db.example"}}}
	for sni, want := range map[string]string{"a.db.example": "exact", "A.DB.Example": "exact", "b.db.example": "wild", "x.b.db.example": "wild",
		"db.example": "", "xdb.example": "", "": ""} {
		got := ""
		if r := relay.Match(routes, sni); r != nil {
			got = r.Name
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", sni, got, want)
		}
	}
	if r := relay.Match(append(routes, model.RelayRoute{Name: "all"}), "other"); r == nil || r.Name != "all" {
		t.Error("a route without names does not take every connection")
	}
	if !relay.ByName(routes) || relay.ByName([]model.RelayRoute{{}}) || relay.Match(nil, "a") != nil {
		t.Error("ByName, or a match of nothing")
	}
}

// TestChoose: each backend gets its share of evenly spread numbers.
func TestChoose(t *testing.T) {
	r := &model.RelayRoute{Backends: []model.Backend{{Weight: 1}, {Weight: 0}, {Weight: 3}}}
	count := [3]int{}
	for i := range uint32(4096) {
		b := relay.Choose(r, i<<20)
		for k := range r.Backends {
			if b == &r.Backends[k] {
				count[k]++
			}
		}
	}
	if count != [3]int{1024, 0, 3072} {
		t.Errorf("shares %v", count)
	}
	if relay.Choose(&model.RelayRoute{}, 7) != nil {
		t.Error("a backend of none")
	}
}
