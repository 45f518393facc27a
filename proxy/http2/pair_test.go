package http2_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// owner is an Events whose methods are fields; what is nil does nothing.
type owner struct {
	head     func(s *http2.Stream, h *message.Head, end bool)
	data     func(s *http2.Stream, p []byte, end bool)
	trailers func(s *http2.Stream, h *message.Head)
	reset    func(s *http2.Stream, code http2.ErrCode)
	writable func(s *http2.Stream)
	goAway   func(last uint32, code http2.ErrCode)
	settings func()
	pong     func([8]byte)
}

func (o *owner) Head(s *http2.Stream, h *message.Head, end bool) {
	if o.head != nil {
		o.head(s, h, end)
	}
}

func (o *owner) Data(s *http2.Stream, p []byte, end bool) {
	if o.data != nil {
		o.data(s, p, end)
	}
}

func (o *owner) Trailers(s *http2.Stream, h *message.Head) {
	if o.trailers != nil {
		o.trailers(s, h)
	}
}

func (o *owner) Reset(s *http2.Stream, code http2.ErrCode) {
	if o.reset != nil {
		o.reset(s, code)
	}
}

func (o *owner) Writable(s *http2.Stream) {
	if o.writable != nil {
		o.writable(s)
	}
}

func (o *owner) GoAway(last uint32, code http2.ErrCode) {
	if o.goAway != nil {
		o.goAway(last, code)
	}
}

func (o *owner) Settings() {
	if o.settings != nil {
		o.settings()
	}
}

func (o *owner) Pong(b [8]byte) {
	if o.pong != nil {
		o.pong(b)
	}
}

// pair is a client and a server whose outputs feed each other.
type pair struct {
	tb             testing.TB
	client, server *http2.Conn
	c, s           owner
	toC, toS       []byte
}

func newPair(tb testing.TB, adjust func(client, server *http2.Config)) *pair {
	p := &pair{tb: tb}
	cc, sc := http2.Config{Events: &p.c}, http2.Config{Server: true, EnableConnect: true, Events: &p.s}
	if adjust != nil {
		adjust(&cc, &sc)
	}
	p.client, p.server = http2.New(cc), http2.New(sc)
	p.pump()
	return p
}

// pump moves bytes until nothing moves.
func (p *pair) pump() {
	for len(p.client.Output())+len(p.server.Output()) > 0 {
		p.toS = move(p.tb, p.client, p.server, p.toS)
		p.toC = move(p.tb, p.server, p.client, p.toC)
	}
}

func move(tb testing.TB, from, to *http2.Conn, buf []byte) []byte {
	buf = append(buf, from.Output()...)
	from.Flushed()
	n, err := to.Feed(buf)
	if err != nil {
		tb.Fatal(err)
	}
	return buf[:copy(buf, buf[n:])]
}

func fields(kv ...string) (fs []message.Field) {
	for i := 0; i < len(kv); i += 2 {
		fs = append(fs, message.Field{Name: []byte(kv[i]), Value: []byte(kv[i+1])})
	}
	return fs
}

func request(method, target string, kv ...string) *message.Head {
	return &message.Head{Method: []byte(method), Target: []byte(target), Scheme: []byte("http"),
		Authority: []byte("reviews.default:9080"), ContentLength: message.NoLength, Fields: fields(kv...)}
}

func response(status int, kv ...string) *message.Head {
	return &message.Head{Status: status, ContentLength: message.NoLength, Fields: fields(kv...)}
}
