package cel_test

import (
	"fmt"
	"testing"

	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
)

// TestLooks: it is known what an expression looks at, and said where it is not.
func TestLooks(t *testing.T) {
	for text, want := range map[string]string{
		`request.method == "GET" && now < timestamp("2030-01-01T00:00:00Z")`:                       "{[] false false false false true}",
		`request.headers["X-User"] == "a" || "x-b" in request.headers`:                             "{[{0 x-user true} {0 x-b true}] false false false false false}",
		`request.query.values("Page").size() > 1 && request.cookies["sid"] != ""`:                  "{[{1 Page true} {2 sid true}] false false false false false}",
		`"staff" in token.claims.values("groups") && token.principal != ""`:                        "{[{3 groups true}] false false false true false}",
		`source.ip.within("10.0.0.0/8") != (source.remoteIP == "192.0.2.1")`:                       "{[] false true true false false}",
		`["a", "b"].exists(n, n in request.headers)`:                                               "{[] true false false false false}",
		`request.headers[request.method] == "x" || request.headers["y"] == ""`:                     "{[{0 y true}] true false false false false}",
		`request.path.startsWith("/" + token.claims["tenant"] + "/") ? true : "b" in token.claims`: "{[{3 tenant true} {3 b true}] false false false false false}",
	} {
		x, err := cel.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := fmt.Sprint(x.(authz.Looker).Looks()); got != want {
			t.Errorf("%s\n%s, want %s", text, got, want)
		}
	}
}
