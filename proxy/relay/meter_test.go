package relay_test

import (
	"bytes"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// TestMetered: both directions of a relay pay from one limit, nothing is lost, and who owes is not stopped for good.
func TestMetered(t *testing.T) {
	w := newWorld(t, relay.Config{})
	w.bare = true
	g := admission.New(admission.Config{})
	if err := g.Set(admission.Terms{Inbound: &model.Inbound{Limits: []model.RateLimit{{Name: "bytes", Requests: 1_000_000, Window: time.Second, Burst: 50_000, Bytes: true}}}}); err != nil {
		t.Fatal(err)
	}
	w.options.Meter = g.Meter(w.loop, model.ServiceName{}, netip.Addr{})
	c, s := w.pair()
	data := bytes.Repeat([]byte("0123456789"), 30_000)
	began := time.Now()
	go func() {
		_, _ = s.Write(data)
		_ = s.CloseWrite()
	}()
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	there := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(s)
		there <- got
	}()
	back, err := io.ReadAll(c)
	if got := <-there; err != nil || !bytes.Equal(got, data) || !bytes.Equal(back, data) {
		t.Errorf("%d bytes there, %d back, %v", len(got), len(back), err)
	}
	// 600 KB at 1 MB a second, less the burst and what each side passes on before it is stopped.
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("in %v", took)
	}
	if r := w.record(); r.RequestBytes != int64(len(data)) || r.ResponseBytes != int64(len(data)) || r.Reason != "" {
		t.Errorf("%+v", r)
	}
}
