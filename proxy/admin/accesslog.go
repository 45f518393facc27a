package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// logged writes a line to logs for every request that h answers, in the formats of a listener's access logs. What only
// a request that is passed on has, an upstream for example, is empty.
func logged(h http.Handler, logs *observe.Logs, began time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var rec record.Record
		rec.Reset()
		rec.Wall, rec.Start = time.Now(), time.Since(began)
		rec.Method, rec.Path, rec.Authority = r.Method, []byte(r.URL.Path), []byte(r.Host)
		e := observe.Entry{Record: &rec, Request: requestHead(r), Version: message.HTTP11, Received: rec.Start, Details: "admin_filter_response"}
		if !r.ProtoAtLeast(1, 1) {
			e.Version = message.HTTP10
		}
		e.Conn, _ = r.Context().Value(connectionKey{}).(*observe.Connection)
		body, out := &countedBody{ReadCloser: r.Body}, &countedAnswer{ResponseWriter: w, began: began}
		r.Body = body
		defer func() {
			out.WriteHeader(http.StatusOK) // if nothing was said at all
			rec.Status, rec.Head, rec.End = out.status, out.head, time.Since(began)
			rec.RequestBytes, rec.ResponseBytes = body.n, out.n
			e.Response = headOf(w.Header())
			logs.Put(&e)
		}()
		h.ServeHTTP(out, r)
	})
}

func requestHead(r *http.Request) *message.Head {
	h := headOf(r.Header)
	h.Method, h.Target, h.Authority, h.Scheme = []byte(r.Method), []byte(r.RequestURI), []byte(r.Host), []byte("http")
	h.ContentLength = r.ContentLength
	return h
}

func headOf(fields http.Header) *message.Head {
	h := &message.Head{}
	h.Reset()
	for name, values := range fields {
		for _, v := range values {
			h.Add([]byte(name), []byte(v))
		}
	}
	return h
}

// countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser
	n int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// countedAnswer notes the status of a response and when it began, and counts its body.
type countedAnswer struct {
	http.ResponseWriter
	began  time.Time
	status int // 0: not said yet
	head   time.Duration
	n      int64
}

// Unwrap is asked by http.ResponseController.
func (a *countedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *countedAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.head = status, time.Since(a.began)
		a.ResponseWriter.WriteHeader(status)
	}
}

func (a *countedAnswer) Write(p []byte) (int, error) {
	if h := a.Header(); a.status == 0 && h.Get("Content-Type") == "" {
		h.Set("Content-Type", http.DetectContentType(p)) // net/http would, and not tell
	}
	a.WriteHeader(http.StatusOK)
	n, err := a.ResponseWriter.Write(p)
	a.n += int64(n)
	return n, err
}

// connectionKey finds a connection in the context of its requests.
type connectionKey struct{}

// numbered gives every connection a number and keeps what access logs tell of it: http.Server.ConnContext.
func numbered() func(ctx context.Context, c net.Conn) context.Context {
	var last atomic.Uint64
	return func(ctx context.Context, c net.Conn) context.Context {
		about := &observe.Connection{ID: last.Add(1)}
		about.Remote, _ = netip.ParseAddrPort(c.RemoteAddr().String())
		about.Local, _ = netip.ParseAddrPort(c.LocalAddr().String())
		return context.WithValue(ctx, connectionKey{}, about)
	}
}
