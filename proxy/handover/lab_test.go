package handover_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/proxy/handover"
)

const patience = 20 * time.Second

// TestMain makes this binary a proxy as well: "lab-server MODE PATH ADDRESS...", where an address is "h1=IP:PORT" or
// "h2=IP:PORT".
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "lab-server" {
		serverMain(os.Args[2], os.Args[3], os.Args[4:])
	}
	os.Exit(m.Run())
}

// labServer is a server of two protocols that can be replaced.
type labServer struct {
	mode     string
	fds      map[string]int
	open     []net.Listener
	begin    []func() // starts to accept
	h2       []*http.Server
	draining atomic.Bool
	conns    sync.WaitGroup
	accepts  sync.WaitGroup
	yielded  chan struct{}
}

func serverMain(mode, path string, addresses []string) {
	s := &labServer{mode: mode, fds: map[string]int{}, yielded: make(chan struct{})}
	taken, err := handover.Take(path, "lab")
	if errors.Is(err, handover.ErrNobody) {
		taken, err = nil, nil
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	say := bufio.NewReader(os.Stdin)
	if mode == "waits" { // until it is told to go on, or killed
		fmt.Println("took")
		say.ReadString('\n')
	}
	for _, a := range addresses {
		s.listen(taken, a)
	}
	if taken != nil {
		if err := taken.Ready(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	for _, begin := range s.begin { // not before all is sure: what is accepted by one that ends is lost
		begin()
	}
	server, err := handover.Serve(handover.Config{Path: path, Version: "lab", After: taken, Offer: s.offer, Yield: s.yield,
		Within: 3 * time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready", os.Getpid())
	<-s.yielded
	s.drain()
	server.Close()
	fmt.Println("drained")
	os.Exit(0)
}

func (s *labServer) listen(taken *handover.Taken, spec string) {
	kind, address, _ := strings.Cut(spec, "=")
	at := netip.MustParseAddrPort(address)
	fd, ok := -1, false
	if taken != nil {
		fd, ok = taken.Listener(at)
	}
	if !ok {
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		f, _ := l.(*net.TCPListener).File()
		fd, _ = unix.Dup(int(f.Fd()))
		unix.CloseOnExec(fd)
		f.Close()
		l.Close()
		fmt.Println("opened", address)
	}
	s.fds[address] = fd
	l := listenerOf(fd)
	s.open = append(s.open, l)
	if s.mode == "deaf" { // leaves what comes in its queue
		return
	}
	if kind == "h2" {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		srv := &http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, os.Getpid())
		})}
		s.h2 = append(s.h2, srv)
		s.begin = append(s.begin, func() { go srv.Serve(l) })
		return
	}
	s.begin = append(s.begin, func() { s.accepts.Go(func() { s.accept(l) }) })
}

func (s *labServer) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.conns.Go(func() { s.serve(c) })
	}
}

func listenerOf(fd int) net.Listener {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		panic(err)
	}
	return l
}

// serve is HTTP/1.1 with a drain that leaves idle connections alone until their next request.
func (s *labServer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		body, end := fmt.Sprint(os.Getpid()), s.draining.Load()
		extra := ""
		if end {
			extra = "Connection: close\r\n"
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", len(body), extra, body)
		if end {
			return
		}
	}
}

func (s *labServer) offer() (o handover.Offer, err error) {
	for a, fd := range s.fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return o, err
		}
		o.Listeners = append(o.Listeners, handover.Listener{Address: a, FD: dup})
	}
	o.Tickets = []byte("[]")
	return o, nil
}

func (s *labServer) yield(took map[string]bool) {
	for _, l := range s.open {
		l.Close()
	}
	s.accepts.Wait()
	for a, fd := range s.fds {
		if !took[a] {
			l := listenerOf(fd)
			for handover.Queued(fd) {
				if c, err := l.Accept(); err == nil {
					s.conns.Go(func() { s.serve(c) })
				}
			}
			l.Close()
		}
		unix.Close(fd)
	}
	close(s.yielded)
}

func (s *labServer) drain() {
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, h := range s.h2 {
		h.Shutdown(ctx)
	}
	s.conns.Wait()
}

// child is a server process.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan struct{}
}

func start(t *testing.T, mode, path string, addresses ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command("/proc/self/exe", append([]string{"lab-server", mode, path}, addresses...)...),
		lines: make(chan string, 100), ended: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{}
	out, err := c.cmd.StdoutPipe()
	check(t, err)
	c.in, err = c.cmd.StdinPipe()
	check(t, err)
	check(t, c.cmd.Start())
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			c.lines <- sc.Text()
		}
		if err := sc.Err(); err != nil && !errors.Is(err, os.ErrClosed) {
			c.lines <- "its output cannot be read: " + err.Error()
		}
		c.cmd.Wait()
		close(c.lines)
		close(c.ended)
	}()
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *child) kill() { c.cmd.Process.Kill(); <-c.ended }

// says waits for a line that begins so.
func (c *child) says(want string) string {
	c.t.Helper()
	late := time.After(patience)
	for {
		select {
		case l, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("the process ended before it said %q", want)
			}
			if strings.HasPrefix(l, want) {
				return l
			}
			if strings.HasPrefix(l, "error:") {
				c.t.Fatalf("%s, not %q", l, want)
			}
		case <-late:
			c.t.Fatalf("no %q", want)
		}
	}
}

func (c *child) ends() {
	c.t.Helper()
	late := time.After(patience)
	for {
		select {
		case <-c.ended:
			return
		case <-late:
			c.t.Fatal("the process did not end")
		case _, ok := <-c.lines:
			if !ok {
				<-c.ended
				return
			}
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ho")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
