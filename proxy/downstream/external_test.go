package downstream_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
)

// external is a policy that asks an authorizer about everything below /ask.
func external() model.Policy {
	p := only(model.ActionExternal, "ext", model.PolicyRule{Name: "asked", To: []model.PolicyTarget{{Paths: []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/ask"}}}}}})
	p.Authorizer = p.Name
	return p
}

// TestNobodyAsks: where an authorizer is wanted and nobody can ask it, nothing passes.
func TestNobodyAsks(t *testing.T) {
	var reached atomic.Int64
	p, _ := policed(t, counting(t, &reached), io.Discard, external())
	for path, want := range map[string]int{"/ask/1": 403, "/other": 200} {
		res, err := http.Get("http://" + p.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		d := p.log.last().Decision
		if res.StatusCode != want || want == 403 && (res.Header.Get("Tulle-Reason") != "authorizer_unavailable" || d.Verdict != record.Denied || !strings.HasSuffix(d.Policy, "/ext")) {
			t.Errorf("%s: %d %v %+v", path, res.StatusCode, res.Header, d)
		}
	}
	if reached.Load() != 1 {
		t.Errorf("%d requests reached the program", reached.Load())
	}
}
