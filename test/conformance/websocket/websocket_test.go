//go:build conformance

// Package websocket sends the WebSocket messages of coder/websocket through the proxy: over one hop of HTTP/1.1, and over
// two hops between which the upgrade is an extended CONNECT of HTTP/2 (RFC 8441), plain and over TLS.
package websocket

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

func TestWebSocket(t *testing.T) {
	ca := subject.NewCA(t)
	own := ca.Issue(t, "localhost")
	server, one, two, three, inner, secure := subject.Port(t), subject.Port(t), subject.Port(t), subject.Port(t), subject.Port(t), subject.Port(t)
	p := subject.Run(t, "websocket", nil, subject.Binary(t, "websocket"), "serve", fmt.Sprintf("127.0.0.1:%d", server))
	p.Wait("listens", func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", server))
		if err == nil {
			c.Close()
		}
		return err
	})
	subject.Start(t, subject.Bootstrap{
		Clusters: []subject.Cluster{
			{Name: "server", Port: server},
			{Name: "inner", Port: inner, HTTP2: true},
			{Name: "secure", Port: secure, HTTP2: true, TLS: &subject.ClientTLS{CA: ca.File, Name: "localhost"}},
		},
		Listeners: []subject.Listener{
			{Port: one, Cluster: "server", Connect: true},
			{Port: two, Cluster: "inner", Connect: true},
			{Port: inner, Cluster: "server", Connect: true, Codec: "HTTP2"},
			{Port: three, Cluster: "secure", Connect: true},
			{Port: secure, Cluster: "server", Connect: true, TLS: &subject.ServerTLS{Cert: own.Cert, Key: own.Key}},
		},
	})
	for name, port := range map[string]int{"1.1 to 1.1": one, "1.1 to 2 to 1.1": two, "1.1 to 2 over TLS to 1.1": three} {
		t.Run(name, func(t *testing.T) {
			c := subject.Run(t, "client", nil, subject.Binary(t, "websocket"), "ask", fmt.Sprintf("ws://127.0.0.1:%d/chat?x=y", port))
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			if code, err := c.End(ctx); err != nil || code != 0 {
				t.Errorf("exit code %d, %v: %s", code, err, c.Output())
			}
		})
	}
}
