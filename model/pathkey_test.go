package model_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
)

func TestPathKey(t *testing.T) {
	for _, c := range []struct{ target, template, want string }{
		{"/users/42", "/users/{id}", "42"}, {"/users/42/cart?x=1", "/users/{id}", "42"}, {"/users/42?x=/a", "/users/{id}", "42"}, {"/users/a%2Fb", "/users/{id}", "a%2Fb"},
		{"/users", "/users/{id}", ""}, {"/users/", "/users/{id}", ""}, {"/users//cart", "/users/{id}", ""}, {"/user/42", "/users/{id}", ""}, {"/users?/42", "/users/{id}", ""},
		{"/v1/x/users/7/a", "/v1/*/users/{id}", "7"}, {"/v1//users/7", "/v1/*/users/{id}", ""}, {"/7/cart", "/{id}/cart", "7"}, {"/7/cart", "/{id}/list", ""}, {"/7", "/{id}/cart", ""},
		{"*", "/{id}", ""}, {"", "/{id}", ""}, {"a.example:80", "/{id}", ""}, {"/", "/{id}", ""},
	} {
		if got := string(model.PathKey([]byte(c.target), c.template)); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.template, c.target, got, c.want)
		}
	}
	target := []byte("/v1/shops/users/42/cart?x=1")
	if n := testing.AllocsPerRun(100, func() { model.PathKey(target, "/v1/*/users/{id}") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzPathKey(f *testing.F) {
	f.Add("/users/42", "/users/{id}")
	f.Fuzz(func(t *testing.T, target, template string) {
		for i, c := range model.PathKey([]byte(target), template) {
			if c == '/' || c == '?' {
				t.Errorf("byte %d of the key is %q", i, c)
			}
		}
	})
}
