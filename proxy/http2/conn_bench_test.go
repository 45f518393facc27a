package http2_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// exchanges answers a function that carries n small requests and their responses at once over one pair of
// connections, everything included: both codecs, both roles.
func exchanges(tb testing.TB, n int) func() {
	p := newPair(tb, nil)
	req := request("GET", "/reviews/0", "user-agent", "curl/8.5.0", "accept", "*/*", "x-request-id", "5d7f1c1e-0b52-4b56-9d4a-0a3d2f1f7a10")
	resp := response(200, "content-type", "application/json", "server", "tulle", "date", "Sat, 21 Nov 2026 00:00:00 GMT")
	body := []byte(`{"id":"0","reviews":[{"reviewer":"Reviewer1","text":"An extremely entertaining play"}]}`)
	resp.ContentLength = int64(len(body))
	id, count := req.Fields[2].Value, uint32(0)
	p.s.head = func(s *http2.Stream, h *message.Head, end bool) {
		p.server.Head(s, resp, false)
		if p.server.Data(s, body, true) != len(body) {
			tb.Fatal("blocked")
		}
		p.server.Release(s)
	}
	done := 0
	p.c.data = func(s *http2.Stream, d []byte, end bool) {
		p.client.Consumed(s, len(d))
		if end {
			done++
			p.client.Release(s)
		}
	}
	return func() {
		done = 0
		for range n {
			count++
			for i, v := 0, count; i < 8; i, v = i+1, v>>4 {
				id[i] = "0123456789abcdef"[v&15]
			}
			if _, err := p.client.Open(req, true); err != nil {
				tb.Fatal(err)
			}
		}
		p.pump()
		if done != n {
			tb.Fatalf("%d of %d done", done, n)
		}
	}
}

// TestNoAllocation: exchanges in a steady state allocate nothing.
func TestNoAllocation(t *testing.T) {
	run := exchanges(t, 10)
	for range 500 {
		run()
	}
	if a := testing.AllocsPerRun(1000, run); a > 0 {
		t.Errorf("%v allocations per ten exchanges", a)
	}
}

// BenchmarkExchange is one whole exchange through both connections: four heads and bodies written and read.
func BenchmarkExchange(b *testing.B) {
	const batch = 32
	run := exchanges(b, batch)
	b.ReportAllocs()
	for i := 0; i < b.N; i += batch {
		run()
	}
}

func BenchmarkExchangeAlone(b *testing.B) {
	run := exchanges(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

// BenchmarkBody moves 1 MB in frames of 16 KB, with flow control.
func BenchmarkBody(b *testing.B) {
	p := newPair(b, func(c, s *http2.Config) { s.InitialWindow = 1 << 20 })
	left, chunk := 0, make([]byte, 16<<10)
	p.s.data = func(s *http2.Stream, d []byte, end bool) { p.server.Consumed(s, len(d)) }
	send := func(s *http2.Stream) {
		for left > 0 {
			n := p.client.Data(s, chunk[:min(left, len(chunk))], false)
			left -= n
			if n < len(chunk) {
				return
			}
		}
	}
	p.c.writable = send
	s, err := p.client.Open(request("POST", "/"), false)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		left = 1 << 20
		send(s)
		p.pump()
		if left > 0 {
			b.Fatal("stuck")
		}
	}
}
