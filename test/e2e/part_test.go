//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// conduct is how a part serves, from when it is told.
type conduct struct {
	Fail  float64       // the share of requests that it answers with 503 or UNAVAILABLE
	First bool          // it answers so the first request of each X-Id
	Break float64       // the share that it breaks off when it has read them, in one of four ways
	Work  time.Duration // what it takes for each
	Next  string        // what it calls for each, as of an order; that answer is its own
	Load  float64       // the utilization that it reports (ORCA), if not 0
	Sick  bool          // at /health
	Rest  time.Duration // it closes connections that have rested for a fifth of this to all of it, at random; 0: never
}

// part is a program of the mesh that the test steers through a unix socket: it serves HTTP on port 8080, gRPC on 9000 (a few calls at
// a time on connections that do not grow old) and TLS on 8443, and calls others. Every X-Id is noted in a file, which outlives it.
type part struct {
	name string
	is   atomic.Pointer[conduct]
	got  atomic.Int64
	gone atomic.Int64 // requests that ended before it had worked for them
	shut atomic.Int64 // idle connections that it has closed
	cert tls.Certificate

	mu   sync.Mutex
	seen map[string]int
	log  *os.File
}

// partMain runs a part. args: its name, the socket, the names in its certificate.
func partMain(args []string) error {
	p := &part{name: args[0], seen: map[string]int{}}
	p.is.Store(&conduct{})
	var err error
	if p.log, err = os.OpenFile(args[1]+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	if p.cert, err = certificateOf(args[0], args[2:]); err != nil {
		return err
	}
	ends := make(chan error, 4)
	for _, s := range []struct {
		network, address string
		serve            func(net.Listener) error
	}{
		{"tcp", ":8080", p.server().Serve},
		{"tcp", ":9000", grpc.NewServer(grpc.UnknownServiceHandler(p.stream), orca.CallMetricsServerOption(nil),
			grpc.MaxConcurrentStreams(5), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 200 * time.Millisecond, MaxConnectionAge: 500 * time.Millisecond})).Serve},
		{"tcp", ":8443", func(l net.Listener) error {
			hs := p.server()
			hs.TLSConfig = &tls.Config{Certificates: []tls.Certificate{p.cert}}
			return hs.ServeTLS(l, "", "")
		}},
		{"unix", args[1], (&http.Server{Handler: http.HandlerFunc(p.steer)}).Serve},
	} {
		l, err := net.Listen(s.network, s.address)
		if err != nil {
			return err
		}
		go func() { ends <- s.serve(l) }()
	}
	return <-ends
}

// certificateOf makes one that signs itself.
func certificateOf(name string, names []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(rand.Int64()), Subject: pkix.Name{CommonName: name}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(cryptorand.Reader, c, c, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// server is an HTTP server that closes idle connections as it is told.
func (p *part) server() *http.Server {
	var mu sync.Mutex
	idle := map[net.Conn]*time.Timer{}
	return &http.Server{Handler: p, ConnState: func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if timer := idle[c]; timer != nil {
			timer.Stop()
			delete(idle, c)
		}
		if rest := p.is.Load().Rest; s == http.StateIdle && rest > 0 {
			idle[c] = time.AfterFunc(rest/5+rand.N(rest*4/5), func() {
				mu.Lock()
				defer mu.Unlock()
				if idle[c] != nil { // else its next request has begun
					c.Close()
					p.shut.Add(1)
				}
			})
		}
	}}
}

// note counts a request, and answers how often its X-Id has been seen.
func (p *part) note(id string) int {
	p.got.Add(1)
	if id == "" {
		return 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[id]++
	fmt.Fprintln(p.log, id)
	return p.seen[id]
}

// work takes its time, unless nobody waits for it any more.
func (p *part) work(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		p.gone.Add(1)
		return false
	}
}

func (p *part) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := p.is.Load()
	if r.URL.Path == "/health" {
		if c.Sick {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	n := p.note(r.Header.Get("X-Id"))
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	if !p.work(r.Context(), c.Work) {
		return
	}
	if rand.Float64() < c.Break {
		breakOff(w)
		return
	}
	if c.Load > 0 {
		w.Header().Set("Endpoint-Load-Metrics", fmt.Sprintf("TEXT application_utilization=%g, rps_fractional=100", c.Load))
	}
	switch {
	case rand.Float64() < c.Fail || c.First && n == 1:
		w.WriteHeader(http.StatusServiceUnavailable)
	case c.Next != "":
		code, text := callNext(r, c.Next)
		w.WriteHeader(code)
		fmt.Fprint(w, text)
		return
	}
	fmt.Fprint(w, strings.TrimSpace(p.name+" "+r.Header.Get("X-User")))
}

// breakOff ends a connection by a reset, without an answer, in the middle of a head, or of a body.
func breakOff(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	switch rand.N(4) {
	case 0:
		_ = conn.(*net.TCPConn).SetLinger(0)
	case 1:
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-")
	case 2:
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	}
}

// callNext calls what comes next as programs do that forward what belongs to traces, and nothing else.
func callNext(r *http.Request, url string) (int, string) {
	next, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return http.StatusInternalServerError, err.Error()
	}
	next.Header.Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	resp, err := http.DefaultClient.Do(next)
	if err != nil {
		return http.StatusBadGateway, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return http.StatusBadGateway, err.Error()
	}
	return resp.StatusCode, string(text)
}

// stream answers calls of any method, unary ones and streams: each message "left" with the time that is left, any other with the
// part's name and what came.
func (p *part) stream(_ any, s grpc.ServerStream) error {
	c := p.is.Load()
	md, _ := metadata.FromIncomingContext(s.Context())
	if n := p.note(strings.Join(md.Get("x-id"), "")); rand.Float64() < c.Fail || c.First && n == 1 {
		return status.Error(codes.Unavailable, p.name)
	}
	if r := orca.CallMetricsRecorderFromContext(s.Context()); c.Load > 0 && r != nil {
		r.SetApplicationUtilization(c.Load)
		r.SetQPS(100)
	}
	for {
		m := &wrapperspb.StringValue{}
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !p.work(s.Context(), c.Work) {
			return s.Context().Err()
		}
		text := strings.TrimSpace(p.name + " " + m.GetValue())
		if at, ok := s.Context().Deadline(); m.GetValue() == "left" {
			text = fmt.Sprint(ok, " ", time.Until(at).Milliseconds())
		}
		if c.Next != "" {
			// It does not hand its own context on: what is left of the time has to travel without its help.
			o := &order{URL: c.Next, Body: m.GetValue(), Header: map[string]string{"x-request-id": strings.Join(md.Get("x-request-id"), "")}}
			var err error
			a := &asker{order: o}
			text, err = a.callGRPC(context.Background(), 0)
			a.close()
			if err != nil {
				return err
			}
		}
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			return err
		}
	}
}

// steer answers the test.
func (p *part) steer(w http.ResponseWriter, r *http.Request) {
	var err error
	var out any
	switch r.URL.Path {
	case "/be":
		c := &conduct{}
		if err = json.NewDecoder(r.Body).Decode(c); err == nil {
			p.is.Store(c)
		}
	case "/ask":
		o := &order{}
		if err = json.NewDecoder(r.Body).Decode(o); err == nil {
			out = o.play(r.Context())
		}
	case "/got":
		out = p.got.Load()
	case "/gone":
		out = p.gone.Load()
	case "/closed":
		out = p.shut.Load()
	case "/certificate":
		out = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Certificate[0]}))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(out) // the test may have ended
}

// player is a part, as the test sees it.
type player struct {
	*process
	m      *mesh
	socket string
	client *http.Client
}

// part starts one and waits until it is announced, if its flags say a port.
func (m *mesh) part(name string, names []string, flags ...string) *player {
	m.t.Helper()
	pl := &player{m: m, socket: filepath.Join(m.dir, name)}
	pl.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", pl.socket)
	}}}
	m.t.Cleanup(pl.client.CloseIdleConnections)
	pl.process = m.run(flags, append([]string{self(m.t), "part", name, pl.socket}, names...)...)
	if slices.Contains(flags, "--port") {
		m.announced(pl.process)
	}
	eventually(m.t, patience, name+" listens", func() error {
		c, err := net.Dial("unix", pl.socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	return pl
}

// tell sends the part a value and reads its answer. From any goroutine.
func (pl *player) tell(what string, in, out any) {
	pl.m.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		pl.m.t.Errorf("%s: %s: %v", pl.name, what, err)
		return
	}
	resp, err := pl.client.Post("http://part/"+what, "application/json", bytes.NewReader(b))
	if err != nil {
		pl.m.t.Errorf("%s: %s: %v", pl.name, what, err)
		return
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil || resp.StatusCode != http.StatusOK {
		pl.m.t.Errorf("%s: %s %s: %v", pl.name, what, resp.Status, err)
	}
}

func (pl *player) be(c conduct) {
	pl.m.t.Helper()
	var none any
	pl.tell("be", c, &none)
}

func (pl *player) ask(o order) tally {
	pl.m.t.Helper()
	var out tally
	pl.tell("ask", o, &out)
	return out
}

// abandoned waits until so many requests have ended before the part had worked for them.
func (pl *player) abandoned(n int, limit time.Duration) {
	pl.m.t.Helper()
	eventually(pl.m.t, limit, fmt.Sprintf("%s works no more for those who have gone", pl.name), func() error {
		var gone int
		if pl.tell("gone", nil, &gone); gone < n {
			return fmt.Errorf("%d of %d", gone, n)
		}
		return nil
	})
}

func (pl *player) got() (n int) {
	pl.m.t.Helper()
	pl.tell("got", nil, &n)
	return n
}

// ids answers the X-Ids that the part has seen, also after its end.
func (pl *player) ids() []string {
	lines := strings.Split(readText(pl.socket+".log"), "\n")
	return lines[:len(lines)-1]
}
