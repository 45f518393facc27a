package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

// TestExpressions: a policy whose expression does not compile is not stored, and the answer says where it is wrong.
func TestExpressions(t *testing.T) {
	p := start(t)
	policy := "apiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  rules:\n  - expression: |\n      true &&\n        requst.method == \"GET\"\n"
	before := p.revision()
	code, text := p.apply(httpapi.ApplyRequest{}, policy)
	if code != http.StatusUnprocessableEntity || !strings.Contains(text, `"file":"a.yaml","line":6`) || !strings.Contains(text, "line 2, column 9: undeclared reference to 'requst.method'") || p.revision() != before {
		t.Errorf("%d %s", code, text)
	}
	if code, text := p.apply(httpapi.ApplyRequest{}, strings.Replace(policy, "requst", "request", 1)); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
}
