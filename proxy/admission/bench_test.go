package admission_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
)

// BenchmarkEnter is what a limit per caller costs a request.
func BenchmarkEnter(b *testing.B) {
	for name, in := range map[string]*model.Inbound{
		"nothing":    {},
		"per caller": {Limits: []model.RateLimit{{Name: "callers", Requests: 100_000_000, Window: time.Second, Burst: 100_000_000, By: []model.RateKey{{Kind: model.RateByCaller}}}}},
		"with response fields": {Limits: []model.RateLimit{{Name: "callers", Requests: 100_000_000, Window: time.Second, Burst: 100_000_000, Headers: true,
			By: []model.RateKey{{Kind: model.RateByCaller}}}}},
	} {
		b.Run(name, func(b *testing.B) {
			f := gate(b, in, nil)
			h := head("GET", "/")
			q := admission.Question{Head: h, Caller: model.ServiceName{Namespace: "default", Name: "front"}}
			r := &request{}
			r.Owner = r
			var notes []byte
			b.ReportAllocs()
			for b.Loop() {
				f.l.now += time.Microsecond
				if f.Enter(&r.Ticket, f.loop, &q) != admission.Admitted {
					b.Fatal("refused")
				}
				if r.Shown() {
					notes = r.AppendState(r.AppendPolicy(notes[:0]))
				}
				r.Leave()
			}
		})
	}
}
