package handover_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/handover"
)

// load is clients that never forgive.
type load struct {
	t       *testing.T
	ctx     context.Context
	stop    context.CancelFunc
	clients sync.WaitGroup
	done    [3]atomic.Int64 // keep-alive, new connections, HTTP/2
	failed  atomic.Int64
}

func begin(t *testing.T, h1, h2 string) *load {
	l := &load{t: t}
	l.ctx, l.stop = context.WithCancel(context.Background())
	for range 4 {
		l.clients.Go(func() { l.keepAlive(h1) })
	}
	l.clients.Go(func() { l.fresh(h1) })
	for range 2 {
		l.clients.Go(func() { l.http2(h2) })
	}
	return l
}

func (l *load) fail(format string, a ...any) {
	if l.failed.Add(1) <= 5 {
		l.t.Errorf(format, a...)
	}
}

// keepAlive uses a connection until the server says that it ends.
func (l *load) keepAlive(address string) {
	for l.ctx.Err() == nil {
		c, err := net.Dial("tcp", address)
		if err != nil {
			l.fail("dial: %v", err)
			return
		}
		r := bufio.NewReader(c)
		for n := 0; l.ctx.Err() == nil; n++ {
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
				l.fail("request %d of a connection: %v", n, err)
				break
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				l.fail("response %d of a connection: %v", n, err)
				break
			}
			io.Copy(io.Discard, resp.Body)
			l.done[0].Add(1)
			if resp.Close {
				break
			}
		}
		c.Close()
	}
}

func (l *load) fresh(address string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for l.ctx.Err() == nil {
		resp, err := client.Post("http://"+address, "text/plain", strings.NewReader("x"))
		if err != nil {
			l.fail("a new connection: %v", err)
			continue
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		l.done[1].Add(1)
	}
}

func (l *load) http2(address string) {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: p}}
	for l.ctx.Err() == nil {
		resp, err := client.Post("http://"+address, "text/plain", strings.NewReader("x"))
		if err != nil {
			l.fail("HTTP/2: %v", err)
			continue
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			l.fail("HTTP/2 body: %v", err)
		}
		resp.Body.Close()
		l.done[2].Add(1)
	}
}

// more waits until every client has had some more answers.
func (l *load) more(requests int64) {
	l.t.Helper()
	for i := range l.done {
		begun := l.done[i].Load()
		until(l.t, "requests", func() bool { return l.failed.Load() > 0 || l.done[i].Load() >= begun+requests })
	}
}

func (l *load) end() {
	l.t.Helper()
	l.more(100)
	l.stop()
	l.clients.Wait()
	l.t.Logf("requests: %d on kept connections, %d on new ones, %d over HTTP/2; failed %d",
		l.done[0].Load(), l.done[1].Load(), l.done[2].Load(), l.failed.Load())
}

// TestRestartsUnderLoad replaces a process 25 times in a row while clients that count every failure are at work.
func TestRestartsUnderLoad(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	h1, h2 := free(t), free(t)
	now := start(t, "", path, "h1="+h1, "h2="+h2)
	now.says("ready")
	l := begin(t, h1, h2)
	for range 25 {
		next := start(t, "", path, "h1="+h1, "h2="+h2)
		next.says("ready")
		now.says("drained")
		now.ends()
		now = next
		l.more(10)
	}
	l.end()
}

// TestSuccessorThatDies: killed before it is ready, at its first and at its last moment, it changes nothing.
func TestSuccessorThatDies(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	h1, h2 := free(t), free(t)
	now := start(t, "", path, "h1="+h1, "h2="+h2)
	now.says("ready")
	l := begin(t, h1, h2)
	for range 3 {
		next := start(t, "waits", path, "h1="+h1, "h2="+h2)
		next.says("took")
		next.kill()
	}
	// One that can not listen where it wants to ends by itself.
	wrong := start(t, "", path, "h1="+h1, "h1=192.0.2.1:1")
	for line := range wrong.lines {
		if strings.HasPrefix(line, "ready") {
			t.Error(line)
		}
	}
	if got := whoIs(t, h1); got != now.cmd.Process.Pid {
		t.Errorf("%d serves, not %d", got, now.cmd.Process.Pid)
	}
	next := start(t, "", path, "h1="+h1, "h2="+h2)
	next.says("ready")
	now.ends()
	l.end()
}

// TestOldDies: a successor that has the sockets goes on alone when the old one dies, and connections that were queued
// meanwhile are served.
func TestOldDies(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	h1 := free(t)
	old := start(t, "", path, "h1="+h1)
	old.says("ready")
	next := start(t, "waits", path, "h1="+h1)
	next.says("took")
	old.kill()
	c, err := net.Dial("tcp", h1)
	check(t, err)
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	io.WriteString(next.in, "\n")
	next.says("ready")
	if got := answer(t, c); got != fmt.Sprint(next.cmd.Process.Pid) {
		t.Errorf("served by %s", got)
	}
	c.Close()
	last := start(t, "", path, "h1="+h1)
	last.says("ready")
	next.ends()
}

// TestOneSuccessorAtATime: a second one is refused while the first has time, which is bounded.
func TestOneSuccessorAtATime(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	h1 := free(t)
	now := start(t, "", path, "h1="+h1)
	now.says("ready")
	slow := start(t, "waits", path, "h1="+h1)
	slow.says("took")
	_, err := handover.Take(path, "second")
	if err == nil || !strings.Contains(err.Error(), "another proxy is taking over") {
		t.Fatalf("a second successor: %v", err)
	}
	until(t, "the slow one is given up", func() bool { // poll
		taken, err := handover.Take(path, "third")
		if err == nil {
			taken.Close()
		}
		return err == nil
	})
	io.WriteString(slow.in, "\n") // too late
	late := false
	for line := range slow.lines {
		late = late || strings.HasPrefix(line, "error:")
	}
	if !late {
		t.Error("a successor that comes too late does not notice")
	}
	if got := whoIs(t, h1); got != now.cmd.Process.Pid {
		t.Errorf("%d serves, not %d", got, now.cmd.Process.Pid)
	}
}

// TestOtherListeners: what both have is handed over, what is new is opened, and what nobody took is closed after
// those who were in its queue have been served.
func TestOtherListeners(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	both, gone, fresh := free(t), free(t), free(t)
	old := start(t, "deaf", path, "h1="+both, "h1="+gone)
	old.says("ready")
	var queued []net.Conn
	for _, a := range []string{both, gone} {
		c, err := net.Dial("tcp", a)
		check(t, err)
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		queued = append(queued, c)
	}
	next := start(t, "", path, "h1="+both, "h1="+fresh)
	next.says("opened " + fresh)
	next.says("ready")
	for i, want := range []int{next.cmd.Process.Pid, old.cmd.Process.Pid} {
		if got := answer(t, queued[i]); got != fmt.Sprint(want) {
			t.Errorf("queue %d was served by %s, not %d", i, got, want)
		}
		queued[i].Close()
	}
	old.ends()
	for _, a := range []string{both, fresh} {
		if got := whoIs(t, a); got != next.cmd.Process.Pid {
			t.Errorf("%s: %d serves", a, got)
		}
	}
	if c, err := net.Dial("tcp", gone); err == nil {
		c.Close()
		t.Error("a listener that nobody took is open still")
	}
}

func answer(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	check(t, err)
	b, err := io.ReadAll(resp.Body)
	check(t, err)
	return string(b)
}

func whoIs(t *testing.T, address string) (pid int) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	check(t, err)
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	fmt.Sscan(answer(t, c), &pid)
	return pid
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(10 * time.Millisecond) { // poll
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve is an old side in this process.
func serve(t *testing.T, c handover.Config) *handover.Server {
	t.Helper()
	c.Log = quiet()
	if c.Offer == nil {
		c.Offer = func() (handover.Offer, error) { return handover.Offer{}, nil }
	}
	if c.Yield == nil {
		c.Yield = func(map[string]bool) {}
	}
	s, err := handover.Serve(c)
	check(t, err)
	t.Cleanup(s.Close)
	return s
}

// TestManyListeners: more than one message holds, each descriptor under its address, and no descriptor is left.
func TestManyListeners(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	before := openFiles(t)
	var o handover.Offer
	inode := map[string]uint64{}
	for i := range 450 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		a := fmt.Sprintf("127.0.0.1:%d", i+1)
		o.Listeners = append(o.Listeners, handover.Listener{Address: a, FD: fd})
		inode[a] = inodeOf(t, fd)
	}
	var took map[string]bool
	s := serve(t, handover.Config{Path: path, Offer: func() (handover.Offer, error) { return o, nil }, Yield: func(m map[string]bool) { took = m }})
	taken, err := handover.Take(path, "new")
	check(t, err)
	for i := range 400 {
		a := netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", i+1))
		fd, ok := taken.Listener(a)
		if !ok || inodeOf(t, fd) != inode[a.String()] {
			t.Fatalf("%s: %v", a, ok)
		}
		if _, again := taken.Listener(a); again {
			t.Fatal("twice")
		}
		unix.Close(fd)
	}
	if n := len(taken.Addresses()); n != 50 {
		t.Errorf("%d left", n)
	}
	check(t, taken.Ready())
	if len(took) != 400 || !s.Yielded() {
		t.Errorf("%d taken, yielded %v", len(took), s.Yielded())
	}
	s.Close()
	if now := openFiles(t); now > before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Fstat(fd, &st))
	return st.Ino
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(list)
}

// TestPath: who serves it, what is left of it, and who may.
func TestPath(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	if _, err := handover.Take(path, ""); !errors.Is(err, handover.ErrNobody) {
		t.Errorf("no file: %v", err)
	}
	l, err := net.Listen("unix", path)
	check(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := handover.Take(path, ""); !errors.Is(err, handover.ErrNobody) {
		t.Errorf("left by a crash: %v", err)
	}
	first := serve(t, handover.Config{Path: path})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := handover.Serve(handover.Config{Path: path, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "another proxy") {
		t.Errorf("a second server: %v", err)
	}
	taken, err := handover.Take(path, "")
	check(t, err)
	check(t, taken.Ready())
	second := serve(t, handover.Config{Path: path, After: taken})
	first.Close()
	if taken, err := handover.Take(path, ""); err != nil {
		t.Errorf("the first one's end took the second one's socket: %v", err)
	} else {
		taken.Close()
	}
	second.Close()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestForeignMessages: whatever is sent, the old side carries on.
func TestForeignMessages(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	serve(t, handover.Config{Path: path, Yield: func(map[string]bool) { t.Error("yielded") }})
	for _, text := range []string{"\n", "{}\n", "nonsense\n", `{"protocol":1,"kind":"ready"}` + "\n", `{"protocol":2,"kind":"take"}` + "\n",
		`{"protocol":1,"kind":"take"}` + "\n" + `{"protocol":1,"kind":"take"}` + "\n", ""} {
		c, err := net.Dial("unix", path)
		check(t, err)
		io.WriteString(c, text)
		c.(*net.UnixConn).CloseWrite()
		c.SetDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, c)
		c.Close()
	}
	until(t, "a true successor", func() bool { // poll
		taken, err := handover.Take(path, "")
		if err == nil {
			taken.Close()
		}
		return err == nil
	})
}

// TestOfferFails: what the old side cannot give is said to the successor.
func TestOfferFails(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	serve(t, handover.Config{Path: path, Offer: func() (handover.Offer, error) { return handover.Offer{}, errors.New("no descriptors left") }})
	if _, err := handover.Take(path, ""); err == nil || !strings.Contains(err.Error(), "no descriptors left") {
		t.Error(err)
	}
}

// TestTicketsResume: a session that began with the old process resumes with the new one, and not with another context.
func TestTicketsResume(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	old, changed := handover.Tickets{}.Renew(now)
	if !changed {
		t.Fatal("no key")
	}
	next, err := handover.ParseTickets(old.Bytes())
	check(t, err)
	if later, changed := next.Renew(now.Add(25 * time.Hour)); !changed || len(later.Keys("a")) != 2 || later.Keys("a")[1] != old.Keys("a")[0] {
		t.Error("not renewed after a day")
	}
	if later, _ := next.Renew(now.Add(9 * 24 * time.Hour)); len(later.Keys("a")) != 1 || later.Keys("a")[0] == old.Keys("a")[0] {
		t.Error("an old key is kept for ever")
	}
	if _, changed := next.Renew(now.Add(time.Hour)); changed {
		t.Error("renewed after an hour")
	}
	cert := certificate(t)
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "a", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	handshake := func(keys [][32]byte) bool {
		cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
		cfg.SetSessionTicketKeys(keys)
		l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
		check(t, err)
		defer l.Close()
		go func() {
			if s, err := l.Accept(); err == nil {
				s.Write([]byte("x"))
				s.Close()
			}
		}()
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		check(t, err)
		defer c.Close()
		io.ReadAll(c)
		return c.ConnectionState().DidResume
	}
	if handshake(old.Keys("web")) {
		t.Error("resumed nothing")
	}
	if !handshake(next.Keys("web")) {
		t.Error("the successor does not resume")
	}
	if handshake(next.Keys("other")) {
		t.Error("another context resumes")
	}
	for _, bad := range []string{"x", `[{"secret":"AAAA"}]`, "[" + strings.Repeat("{},", 16) + "{}]"} {
		if _, err := handover.ParseTickets([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, &key.PublicKey, key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
