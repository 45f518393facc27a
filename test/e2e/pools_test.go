//go:build e2e

package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/xds/extproc/extproctest"
)

// pickerMain is an endpoint picker on port 9002: the request's body says how manyeth of the endpoints it is told of takes it.
func pickerMain([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:9002")
	if err != nil {
		return err
	}
	p := &extproctest.Picker{Decide: func(h *extproctest.Heard) extproctest.Said {
		slices.Sort(h.Subset)
		if n := strings.IndexByte("01", h.Body[len(h.Body)-1]); n >= 0 && n < len(h.Subset) {
			return extproctest.Said{Endpoints: "192.0.2.1:8080," + h.Subset[n]}
		}
		return extproctest.Said{Status: 429, Text: "shed"}
	}}
	g := grpc.NewServer()
	p.Register(g)
	return g.Serve(l)
}

// TestInferencePool: the picker, a program of the mesh, says which workload of a pool takes a request, by what the request says; without
// it the failure mode decides.
func TestInferencePool(t *testing.T) {
	m := newMesh(t)
	for _, name := range []string{"one", "two"} {
		m.podinfo(name, "--service", "vllm", "--label", "model=llama")
	}
	m.podinfo("front", "--service", "llm")
	picker := m.run([]string{"--service", "epp", "--port", "9002/grpc"}, self(t), "picker")
	m.announced(picker)
	pool := func(mode string) {
		m.apply(`apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama}
spec:
  selector: {matchLabels: {model: llama}}
  targetPorts: [{number: 8080}]
  endpointPickerRef: {name: epp, port: {number: 9002}, failureMode: ` + mode + `}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm}
spec:
  parentRefs: [{group: "", kind: Service, name: llm}]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]}]
`)
		m.ok(m.cli("wait"))
	}
	pool("FailClose")
	ask := func(body string) string {
		out := m.ok(m.call("sh", "-c", `for i in 1 2 3; do curl -sS --max-time 20 -X GET -d '`+body+`' -w ' %{http_code}\n' http://llm:8080/; done`))
		var who []string
		for _, name := range []string{`"one"`, `"two"`, `"front"`, "shed", "pick_failed", "200", "429", "503"} {
			if strings.Count(out, name) == 3 {
				who = append(who, strings.Trim(name, `"`))
			}
		}
		return strings.Join(who, " ")
	}
	first, second := ask("prompt 0"), ask("prompt 1")
	if first == second || !slices.Contains([]string{"one 200", "two 200"}, first) || !slices.Contains([]string{"one 200", "two 200"}, second) {
		t.Errorf("first %q, second %q", first, second)
	}
	if got := ask("prompt 2"); got != "shed 429" {
		t.Errorf("refused: %q", got)
	}
	if got := m.ok(m.cli("get", "inferencepools")); !strings.Contains(got, "epp:9002") || strings.Count(got, "True") != 2 {
		t.Errorf("listed as\n%s", got)
	}
	picker.stop(patience)
	if got := ask("prompt 0"); got != "pick_failed 503" {
		t.Errorf("without a picker: %q", got)
	}
	pool("FailOpen")
	if got := ask("prompt 2"); !strings.HasSuffix(got, "200") {
		t.Errorf("without a picker, open: %q", got)
	}
}
