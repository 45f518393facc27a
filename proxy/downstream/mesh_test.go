package downstream_test

//lint:file-ignore SA1019 golang.org/x/net/http2 is the second implementation that this one is compared with (DESIGN section 9)

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// identity is an mtls.Source that never changes.
type identity struct{ id *mtls.Identity }

func (i identity) Identity() *mtls.Identity { return i.id }

func prove(a *svidtest.Authority, service string) identity {
	s := a.Issue(spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: service}).SVID
	return identity{&mtls.Identity{Certificate: s.Certificate, Roots: s.Roots}}
}

// secure is the way of production: two proxies with mTLS between them. serverAs is who the second proves to be.
func secure(t testing.TB, program netip.AddrPort, serverAs string) (out, in *hop) {
	a := svidtest.New(t)
	o := inbound(program)
	o.Mesh, o.MTLS = true, true
	cfg := mtls.ServerConfig(prove(a, serverAs), mtls.ServerOptions{})
	in = newHop(t, setup{origin: o, http2: true, wrap: func(c loop.Conn, serve func(c loop.Conn) loop.Handler) loop.Handler {
		s := &handshake{serve: serve}
		s.c = mtls.Server(c, cfg, s)
		return nil
	}})
	l := newLoop(t)
	s := setup{loop: l, origin: exchange.Origin{Direction: record.Outbound, Destination: to(t, model.Timeouts{}, mesh(in)), Service: cart}}
	s.pool.Mesh = pool.Over(&upstream.Mesh{Loop: l, Source: prove(a, "web")})
	return newHop(t, s), in
}

// handshake hands a connection on when its handshake is done.
type handshake struct {
	c     *mtls.Conn
	serve func(c loop.Conn) loop.Handler
}

func (h *handshake) Opened()         { h.c.SetHandler(h.serve(h.c)) }
func (h *handshake) Data([]byte) int { return 0 }
func (h *handshake) EOF()            {}
func (h *handshake) Writable()       {}
func (h *handshake) Closed(error)    {}

func TestMTLS(t *testing.T) {
	echo := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	out, in := secure(t, addrOf(t, echo), "cart")
	data := noise(3 << 20)
	for range 3 {
		res, err := client(t).Post(out.url("/"), "text/plain", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("got %d, %d bytes, %v", res.StatusCode, len(got), err)
		}
	}
	if r := out.log.last(); r.DestinationID != "spiffe://tulle.local/ns/default/sa/cart" {
		t.Errorf("record %+v", r)
	}
	in.until("one connection", func() bool { return in.loop.Load() > 0 })
}

func TestWrongIdentity(t *testing.T) {
	out, _ := secure(t, nobody(t), "impostor")
	res, _ := post(t, out, "x")
	if res.StatusCode != 502 || res.Header.Get("Tulle-Reason") != "peer_identity" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

// Over TLS the exchange allocates nothing either.
func TestNoAllocationMTLS(t *testing.T) {
	out, in := secure(t, fixed(t), "cart")
	out.log.forget()
	in.log.forget()
	noAllocation(t, allowedTLS, drive(t, out))
}

func BenchmarkMTLS(b *testing.B) {
	out, in := secure(b, fixed(b), "cart")
	out.log.forget()
	in.log.forget()
	one := drive(b, out)
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}

// h2cServer is a program that speaks HTTP/2 in the clear.
func h2cServer(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	srv := serve(t, h2c.NewHandler(h, &http2.Server{}).ServeHTTP)
	return addrOf(t, srv)
}

// h2cClient is a client with prior knowledge.
func h2cClient(t testing.TB) *http.Client {
	tr := &http2.Transport{AllowHTTP: true, DialTLS: func(network, addr string, _ *tls.Config) (net.Conn, error) {
		return net.Dial(network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// HTTP/2 from a program arrives as HTTP/2 at the other one, through two proxies, with trailers both ways and both
// directions open at once, as gRPC needs it.
func TestH2C(t *testing.T) {
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the program got %s", r.Proto)
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		b := make([]byte, 4096)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "7")
	})
	in := sidecar(t, program)
	s := setup{origin: exchange.Origin{Direction: record.Outbound, Destination: to(t, model.Timeouts{}, mesh(in)), Service: cart}, http2: true}
	p := newHop(t, s)
	r, w := io.Pipe()
	req, _ := http.NewRequest("POST", p.url("/x"), r)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := h2cClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 100 {
		msg := fmt.Sprintf("message %03d", i)
		_, _ = io.WriteString(w, msg)
		b := make([]byte, len(msg))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != msg {
			t.Fatalf("%q %v", b, err)
		}
	}
	w.Close()
	if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil {
		t.Fatalf("%q %v", b, err)
	}
	if got := res.Trailer.Get("Grpc-Status"); got != "7" {
		t.Errorf("trailers %v", res.Trailer)
	}
	p.until("the record", func() bool { return p.log.count() == 1 })
	if rec := p.log.last(); rec.GRPC != 7 || rec.Protocol != model.ProtocolGRPC {
		t.Errorf("record %+v", rec)
	}
}

// A failure is told to a gRPC client in its own way.
func TestGRPCFailure(t *testing.T) {
	s := setup{origin: exchange.Origin{Direction: record.Outbound, Destination: to(t, model.Timeouts{}), Service: cart}, http2: true}
	p := newHop(t, s)
	req, _ := http.NewRequest("POST", p.url("/x"), http.NoBody)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := h2cClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "14" || res.Header.Get("Tulle-Reason") != "no_endpoint" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

// Many exchanges at once share one connection per endpoint.
func TestMultiplexing(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	in := sidecar(t, addrOf(t, srv))
	p := caller(t, model.Timeouts{}, mesh(in))
	c := client(t)
	done := make(chan error, 50)
	for range 50 {
		go func() {
			res, err := c.Get(p.url("/"))
			if err == nil {
				res.Body.Close()
			}
			done <- err
		}()
	}
	p.until("50 exchanges", func() bool { return p.worker.Open() == 50 })
	in.until("50 exchanges", func() bool { return in.worker.Open() == 50 })
	p.do(func() {
		if n := p.pool.Conns(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
	close(release)
	for range 50 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
