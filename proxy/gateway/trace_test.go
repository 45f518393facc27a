package gateway_test

import (
	"context"
	"net/http/httptrace"
)

// withConn calls f with the local address of the connection that a request goes on.
func withConn(ctx context.Context, f func(addr string)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { f(i.Conn.LocalAddr().String()) }})
}
