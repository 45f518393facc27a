package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// closer is a server that closes a connection without a request at random after 1 to 5 s, and for the last 20 ms looks at
// nothing that arrives, as a busy one does whose timer has fired.
type closer struct {
	at            netip.AddrPort
	opened, asked atomic.Int64
}

func newCloser(t *testing.T) *closer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := &closer{at: netip.MustParseAddrPort(l.Addr().String())}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.opened.Add(1)
			go m.serve(c)
		}
	}()
	return m
}

func (m *closer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(time.Second + rand.N(4*time.Second)))
		if _, err := r.Peek(1); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				<-time.After(20 * time.Millisecond)
			}
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, q.Body)
		m.asked.Add(1)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// TestLearnedKeepAlive: nothing is lost with such servers, though a POST that was sent on a connection that is being closed
// cannot be sent again. Eight servers are each sent bursts, so that many connections rest between them.
func TestLearnedKeepAlive(t *testing.T) {
	const servers, bursts, burst = 8, 12, 40
	b := &model.Bootstrap{}
	var all []*closer
	for i := range servers {
		m := newCloser(t)
		all = append(all, m)
		name := fmt.Sprint("closer-", i)
		static(b, name, m.at)
		b.Listeners = append(b.Listeners, listener(name, httpChain(name)))
	}
	g := start(t, b)
	var clients sync.WaitGroup
	var failed atomic.Int64
	for i := range all {
		url := "http://" + g.Listening(fmt.Sprint("closer-", i))[0].String() + "/"
		clients.Go(func() {
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: burst}}
			defer c.CloseIdleConnections()
			for range bursts {
				var one sync.WaitGroup
				for k := range burst {
					one.Go(func() {
						if err := buy(c, url, k%2 == 0); err != nil && failed.Add(1) < 10 {
							t.Error(err)
						}
					})
				}
				one.Wait()
				<-time.After(200*time.Millisecond + rand.N(2800*time.Millisecond)) // connections rest
			}
		})
	}
	clients.Wait()
	var opened, asked int64
	for _, m := range all {
		opened, asked = opened+m.opened.Load(), asked+m.asked.Load()
	}
	t.Logf("%d requests, half of them POST, %d failed; %d connections to the servers, where one per place in a burst would be %d",
		servers*bursts*burst, failed.Load(), opened, servers*burst)
	if asked < servers*bursts*burst {
		t.Errorf("%d requests have arrived", asked)
	}
}

func buy(c *http.Client, url string, post bool) error {
	var r *http.Response
	var err error
	if post {
		r, err = c.Post(url, "text/plain", strings.NewReader("pay"))
	} else {
		r, err = c.Get(url)
	}
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != 200 || string(text) != "ok") {
		err = fmt.Errorf("%s %s: %s", r.Request.Method, r.Status, text)
	}
	return err
}
