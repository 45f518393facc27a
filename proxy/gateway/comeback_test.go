package gateway_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// TestComeback: the only endpoint refuses connections for a while; who waits between attempts, as its policy says, is
// answered once it is back.
func TestComeback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	b := &model.Bootstrap{}
	static(b, "one", at)
	chain := httpChain("one")
	chain.HTTP.Routes.Hosts[0].Routes[0].Retry = &model.Retry{On: model.RetryUntouched, Attempts: 20, Base: 20 * time.Millisecond, Least: 20 * time.Millisecond, Max: 100 * time.Millisecond, OtherHosts: true}
	b.Listeners = []model.Listener{listener("l", chain)}
	g := start(t, b)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "back") })}
	defer s.Close()
	time.AfterFunc(200*time.Millisecond, func() {
		if l, err := net.Listen("tcp", at.String()); err == nil {
			_ = s.Serve(l) // until the end of the test
		}
	})
	if got := get(t, http.DefaultClient, "http://"+g.Listening("l")[0].String()+"/"); got != "back" {
		t.Errorf("%q", got)
	}
}
