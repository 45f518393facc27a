package decision_test

import (
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

func TestFold(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "": "", "/users/17": "/users/{id}", "/users/17/": "/users/{id}/", "/v1/abc": "/v1/abc", "/a//7": "/a//{id}",
		"/o/0f8fad5b-d9cb-469f-a165-70867728950e/x": "/o/{id}/x", "/blob/deadbeef0123": "/blob/{id}", "/deadbeef/cafe": "/deadbeef/cafe", "/facadefacade": "/facadefacade",
		"/2024-01-02": "/2024-01-02", "/-": "/-",
	} {
		if got, folded := decision.Fold(path); got != want || folded != (got != path) {
			t.Errorf("%q: %q, %v", path, got, folded)
		}
	}
}

// TestFields: whatever a value is, it is read as it was written.
func TestFields(t *testing.T) {
	var b []byte
	for _, v := range []string{"a", "b&q:c=d", "", "100%", "\x00\xff ü"} {
		b = decision.AppendField(b, model.ConditionHeader, "x-user", v, true)
	}
	b = decision.AppendField(b, model.ConditionQuery, "page=", "", false)
	f := decision.ParseFields(string(b))
	if len(f) != 2 || !slices.Equal(f[0].Values, []string{"a", "b&q:c=d", "", "100%", "\x00\xff ü"}) || f[1].Name != "page=" || f[1].Values != nil {
		t.Errorf("%s: %+v", b, f)
	}
	if v, ok := f.Value(model.ConditionHeader, "x-user", 1); !ok || v != "b&q:c=d" {
		t.Errorf("%q, %v", v, ok)
	}
	if _, ok := f.Value(model.ConditionQuery, "page=", 0); ok || !f.Told(model.ConditionQuery, "page=") || f.Told(model.ConditionQuery, "x-user") {
		t.Error("what was not there is")
	}
	if !decision.Secret(model.ConditionHeader, "authorization") || !decision.Secret(model.ConditionCookie, "x") || decision.Secret(model.ConditionHeader, "x-user") {
		t.Error("secrets")
	}
}

// FuzzFields: nothing that is read makes trouble, and what was read is written the same way again.
func FuzzFields(f *testing.F) {
	f.Add("h:x-user=alice&h:x-user=bob&q:page")
	f.Add("h:=%4&&x:y&q:%41=%zz")
	f.Fuzz(func(t *testing.T, text string) {
		var b []byte
		first := decision.ParseFields(text)
		for _, x := range first {
			for _, v := range x.Values {
				b = decision.AppendField(b, x.Kind, x.Name, v, true)
			}
			if len(x.Values) == 0 {
				b = decision.AppendField(b, x.Kind, x.Name, "", false)
			}
		}
		second := decision.ParseFields(string(b))
		if len(first) != len(second) && !slices.ContainsFunc(first, func(x decision.Field) bool { return x.Name == "" }) {
			t.Fatalf("%q: %+v, then %+v", text, first, second)
		}
	})
}
