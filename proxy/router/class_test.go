package router_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/router"
)

func TestClass(t *testing.T) {
	shop := model.ServiceName{Namespace: "default", Name: "shop"}
	table, err := router.Compile(&model.RouteTable{Classes: []model.ClassRule{
		{Match: model.Match{Path: "/pay"}, From: []string{"shop.default", "till.default"}, Class: model.ClassCritical},
		{Match: model.Match{Path: "/", Headers: []model.FieldMatch{{Name: "x-job", Kind: model.FieldPresent}}}, Class: model.ClassBatch},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target string
		fields []string
		from   model.ServiceName
		want   model.Class
		said   bool
	}{
		{"/pay/1", nil, shop, model.ClassCritical, true},
		{"/pay/1", nil, model.ServiceName{Namespace: "default", Name: "shopping"}, model.ClassDefault, false},
		{"/pay/1", nil, model.ServiceName{Namespace: "other", Name: "shop"}, model.ClassDefault, false},
		{"/pay/1", []string{"X-Job", "1"}, shop, model.ClassCritical, true},
		{"/else", []string{"X-Job", "1"}, shop, model.ClassBatch, true},
		{"/else", nil, shop, model.ClassDefault, false},
	} {
		h := head("GET", c.target, c.fields...)
		if got, said := table.Class(h, c.from, 0); got != c.want || said != c.said {
			t.Errorf("%s %v from %s: class %d, %v", c.target, c.fields, c.from, got, said)
		}
		if n := testing.AllocsPerRun(100, func() { table.Class(h, c.from, 0) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	if _, err := router.Compile(&model.RouteTable{Classes: []model.ClassRule{{Match: model.Match{PathKind: model.PathRegex, Path: "("}}}}); err == nil {
		t.Error("a rule that cannot be compared was taken")
	}
}
