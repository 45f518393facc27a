package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/nft"
	"github.com/tulle-mesh/tulle/internal/testenv"
	"github.com/tulle-mesh/tulle/model"
)

const insideEnv = "TULLE_TEST_TURNED"

// TestTurned: connections that the kernel turns to a listener go where their clients wanted, HTTP and TCP. It runs again
// in a network namespace of its own.
func TestTurned(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		turned(t)
		return
	}
	testenv.NeedRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTurned$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func turned(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	one, two := netip.MustParseAddrPort("127.0.0.2:80"), netip.MustParseAddrPort("127.0.0.3:80")
	for _, at := range []netip.AddrPort{one, two} {
		serveAt(t, at)
	}
	b := &model.Bootstrap{}
	wherever(b, "original", model.OriginalOptions{})
	l, tcp := listener("http", httpChain("original")), listener("tcp", tcpChain("original"))
	l.OriginalDestination, tcp.OriginalDestination = true, true
	b.Listeners = []model.Listener{l, tcp}
	g := start(t, b)
	for _, name := range []string{"http", "tcp"} {
		to := g.Listening(name)[0]
		if err := nft.Apply(nft.Rules{NAT: []nft.Rule{{Marked: true, Proto: unix.IPPROTO_TCP, Port: 80, Action: nft.Redirect, To: to.Port()}}}); err != nil {
			t.Fatal(err)
		}
		for _, at := range []netip.AddrPort{one, two, one} {
			if got, err := asked80(at); err != nil || got != "I am "+at.String() {
				t.Errorf("%s: asked %s: %q, %v", name, at, got, err)
			}
		}
		if _, err := asked80(netip.MustParseAddrPort("127.0.0.4:80")); err == nil {
			t.Errorf("%s: an answer of nobody", name)
		}
		rules, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		rules.FlushRuleset()
		if err := rules.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	// Who comes to the listener itself is sent nowhere, though connection tracking knows an original destination: ours.
	if status, body := ask(t, g.Listening("http")[0], "1"); status != 503 {
		t.Errorf("directly: %d %q", status, body)
	}
}

func serveAt(t *testing.T, at netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "I am %s", at) }))
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
}

// asked80 sends a request on a connection that the rules turn.
func asked80(at netip.AddrPort) (string, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		err2 := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, nft.Mark) })
		return errors.Join(err, err2)
	}}
	c, err := d.DialContext(context.Background(), "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return "", err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != 200 {
		err = errors.New(r.Status)
	}
	return string(body), err
}
