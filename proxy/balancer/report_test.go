package balancer_test

import (
	"encoding/base64"
	"math"
	"testing"

	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/proxy/balancer"
)

func TestParseReport(t *testing.T) {
	full := balancer.Report{Application: 0.8, CPU: 0.7, Requests: 120.5, Errors: 2}
	message, err := proto.Marshal(&orcav3.OrcaLoadReport{ApplicationUtilization: 0.8, CpuUtilization: 0.7, MemUtilization: 0.5, RpsFractional: 120.5, Eps: 2,
		NamedMetrics: map[string]float64{"queue": 3}, Utilization: map[string]float64{"disk": 0.1}, RequestCost: map[string]float64{"a": 1}})
	if err != nil {
		t.Fatal(err)
	}
	bin := base64.StdEncoding.EncodeToString(message)
	for _, c := range []struct {
		value  string
		binary bool
		want   balancer.Report
		ok     bool
	}{
		{"TEXT application_utilization=0.8, cpu_utilization=0.7,rps_fractional=120.5, eps=2, named_metrics.queue=3", false, full, true},
		{"TEXT application_utilization:0.8,cpu_utilization:0.7,rps_fractional:120.5,eps:2", false, full, true},
		{`JSON {"application_utilization": 0.8, "cpu_utilization": "0.7", "rps_fractional": 120.5, "eps": 2, "named_metrics": {"queue": 3}}`, false, full, true},
		{`JSON {"applicationUtilization":8e-1,"cpuUtilization":0.7,"memUtilization":null,"rpsFractional":120.5,"eps":2}`, false, full, true},
		{"BIN " + bin, false, full, true},
		{bin, true, full, true},
		{base64.RawStdEncoding.EncodeToString(message), true, full, true},
		{"JSON {}", false, balancer.Report{}, true},
		{"", true, balancer.Report{}, true},
		{"", false, balancer.Report{}, false},
		{"TEXT", false, balancer.Report{}, false},
		{"BIN ", false, balancer.Report{}, true},
		{"TEXTcpu_utilization=1", false, balancer.Report{}, false},
		{"TEXT cpu_utilization", false, balancer.Report{}, false},
		{"TEXT cpu_utilization=NaN", false, balancer.Report{}, false},
		{"TEXT cpu_utilization=1e999", false, balancer.Report{}, false},
		{"TEXT cpu_utilization=-1", false, balancer.Report{}, false},
		{"TEXT cpu_utilization=0x1p3", false, balancer.Report{}, false},
		{"JSON {\"cpu_utilization\": 1", false, balancer.Report{}, false},
		{"JSON {\"cpu_utilization\": 1}}", false, balancer.Report{}, false},
		{`JSON {"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}`, false, balancer.Report{}, false},
		{"JSON []", false, balancer.Report{}, false},
		{"BIN !!!", false, balancer.Report{}, false},
		{"XML <a/>", false, balancer.Report{}, false},
	} {
		r, ok := balancer.ParseReport([]byte(c.value), c.binary)
		if ok != c.ok || r != c.want {
			t.Errorf("%q: %+v, %v, want %+v, %v", c.value, r, ok, c.want, c.ok)
		}
	}
}

// TestReportWeight: gRFC A58.
func TestReportWeight(t *testing.T) {
	for _, c := range []struct {
		r       balancer.Report
		penalty float64
		want    float64
	}{
		{balancer.Report{CPU: 0.5, Requests: 100}, 1, 200},
		{balancer.Report{CPU: 0.5, Application: 0.25, Requests: 100}, 1, 400},
		{balancer.Report{CPU: 0.5, Requests: 100, Errors: 50}, 1, 100},
		{balancer.Report{CPU: 0.5, Requests: 100, Errors: 50}, 0, 200},
		{balancer.Report{CPU: 0.5}, 1, 0},
		{balancer.Report{Requests: 100}, 1, 0},
	} {
		if got := c.r.Weight(c.penalty); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v, penalty %.0f: %.1f, want %.1f", c.r, c.penalty, got, c.want)
		}
	}
}

// same reports whether r says what the message says, where that is a report at all.
func same(r balancer.Report, ok bool, m *orcav3.OrcaLoadReport) bool {
	want := balancer.Report{Application: m.ApplicationUtilization, CPU: m.CpuUtilization, Requests: m.RpsFractional, Errors: m.Eps}
	if want.Requests == 0 {
		want.Requests = float64(m.Rps) //lint:ignore SA1019 servers still send it
	}
	for _, v := range []float64{want.Application, want.CPU, want.Requests, want.Errors} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return !ok
		}
	}
	return ok && r == want
}

// FuzzReport: what protobuf reads is read, and means the same; nothing else is more than refused.
func FuzzReport(f *testing.F) {
	seed, _ := proto.Marshal(&orcav3.OrcaLoadReport{CpuUtilization: 0.3, RpsFractional: 10, Eps: 1, NamedMetrics: map[string]float64{"a": 1}})
	f.Add(seed)
	f.Add([]byte(`{"cpu_utilization":0.25,"namedMetrics":{"x":1},"eps":"3"}`))
	f.Add([]byte("cpu_utilization=0.3, eps:1"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 2000 {
			return
		}
		var m orcav3.OrcaLoadReport
		text := base64.StdEncoding.EncodeToString(p)
		r, ok := balancer.ParseReport([]byte(text), true)
		err := proto.Unmarshal(p, &m)
		odd := !ok && len(m.ProtoReflect().GetUnknown()) > 0 // groups, which no version of the message has, are refused
		if err == nil && !odd && !same(r, ok, &m) {
			t.Errorf("binary %x: %+v, %v; protobuf: %v", p, r, ok, &m)
		}
		if again, okAgain := balancer.ParseReport([]byte("BIN "+text), false); again != r || okAgain != ok {
			t.Errorf("BIN %x: %+v, alone %+v", p, again, r)
		}
		m.Reset()
		r, ok = balancer.ParseReport(append([]byte("JSON "), p...), false)
		if err := protojson.Unmarshal(p, &m); err == nil && ok && !same(r, ok, &m) {
			t.Errorf("JSON %q: %+v, %v; protobuf: %v", p, r, ok, &m)
		}
		balancer.ParseReport(append([]byte("TEXT "), p...), false)
	})
}

func TestParseReportAllocatesNothing(t *testing.T) {
	values := [][]byte{[]byte("TEXT cpu_utilization=0.3,rps_fractional=1234.5"), []byte(`JSON {"cpu_utilization":0.3,"named_metrics":{"a":1}}`), []byte("BIN CTMzMzMzM9M/")}
	if a := testing.AllocsPerRun(1000, func() {
		for _, v := range values {
			if _, ok := balancer.ParseReport(v, false); !ok {
				t.Fatalf("%s is refused", v)
			}
		}
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}
