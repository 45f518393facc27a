//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tulle-mesh/tulle/telemetry"
)

// streamsMain keeps one WebSocket (args[0], an echo server), one TCP connection (args[1], a Redis) and one stream of gRPC
// (args[2], a health service) open until SIGTERM, and counts as loadMain does. A stream that breaks is not made again.
func streamsMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := &load{sum: counts{Errors: map[string]int{}}}
	var all sync.WaitGroup
	for name, f := range map[string]func(context.Context, string, func()) error{"websocket": webSocketStream, "tcp": redisStream, "grpc": watchStream} {
		address := map[string]string{"websocket": args[0], "tcp": args[1], "grpc": args[2]}[name]
		all.Go(func() {
			err := f(ctx, address, func() {
				l.mu.Lock()
				l.sum.OK++
				l.mu.Unlock()
			})
			l.mu.Lock()
			defer l.mu.Unlock()
			l.sum.Opened++
			if err != nil && ctx.Err() == nil {
				l.sum.Failed++
				l.sum.Errors[name+": "+plain(err).Error()]++
			}
		})
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			l.print(false)
		}
	}
	all.Wait()
	l.print(true)
	return nil
}

// hangMain is a proxy that never becomes ready: this binary where tulle is expected.
func hangMain([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

// exchange sends and reads back every 10 ms until ctx ends.
func exchange(ctx context.Context, c net.Conn, once func() error, answered func()) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if err := once(); err != nil {
			return err
		}
		answered()
		<-tick.C
	}
	return nil
}

func webSocketStream(ctx context.Context, address string, answered func()) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /websocket/echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", address)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	return exchange(ctx, c, func() error {
		if _, err := c.Write([]byte{0x81, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'}); err != nil { // the mask is zero
			return err
		}
		echo := make([]byte, 7)
		if _, err := io.ReadFull(r, echo); err != nil {
			return err
		}
		if string(echo) != "\x81\x05hello" {
			return fmt.Errorf("another echo: %x", echo)
		}
		return nil
	}, answered)
}

func redisStream(ctx context.Context, address string, answered func()) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	return exchange(ctx, c, func() error {
		fmt.Fprint(c, "PING\r\n")
		line, err := r.ReadString('\n')
		if err == nil && line != "+PONG\r\n" {
			err = fmt.Errorf("%q", line)
		}
		return err
	}, answered)
}

// watchStream is a call whose response does not end. It counts once: that it stands is seen at its end.
func watchStream(ctx context.Context, address string, answered func()) error {
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := healthpb.NewHealthClient(c).Watch(ctx, &healthpb.HealthCheckRequest{Service: "podinfo"})
	if err != nil {
		return err
	}
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
		answered()
	}
}

// upgrading is a command of tulle upgrade that runs.
func (m *mesh) upgrading(args ...string) *process {
	m.t.Helper()
	return start(m.t, "tulle upgrade", m.command(append([]string{"upgrade", "--data-dir", m.data}, args...)...))
}

// workloadOf answers the name of the workload that p is.
func (m *mesh) workloadOf(p *process) string {
	m.t.Helper()
	for _, w := range m.status().Workloads {
		if w.PID == p.pid() {
			return w.Namespace + "/" + w.Name
		}
	}
	m.t.Fatalf("%s is no workload", p.name)
	return ""
}

// proxies answers how many proxies a workload has at this moment.
func (p *process) proxies() (pids []int) {
	for _, q := range processes() {
		if q.parent == p.pid() && strings.HasPrefix(q.command, "tulle proxy") {
			pids = append(pids, q.pid)
		}
	}
	return pids
}

var upgraded = regexp.MustCompile(`^default/[a-z0-9-]+: \S+/(\d+) -> \S+/(\d+), drained in [0-9.]+s\n$`)

// TestUpgradeUnderLoad: proxies on both sides are replaced while requests flow. None fails, streams that stand go on on
// the old proxy, the program is the same process, and the workload is one endpoint all the time.
func TestUpgradeUnderLoad(t *testing.T) {
	redis := program(t, "redis-server", "redis-server")
	m := newMesh(t)
	server := m.run([]string{"--service", "httpbin", "--port", "8080"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF", "-max-duration", "10m") // it ends WebSockets after that
	m.announced(server)
	grpcServer := m.run([]string{"--service", "health", "--port", "9999/grpc", "--ready", "tcp"}, binary(t, "podinfo"), "--port", "9898", "--grpc-port", "9999", "--level", "debug")
	m.announced(grpcServer)
	tcp := m.run([]string{"--service", "redis", "--port", "6379"}, redis, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", m.dir, "--bind", "127.0.0.1")
	m.announced(tcp)
	loads := []*loader{m.load([]string{"-posts"}, "http://httpbin:8080/anything"), m.loadBy(1, "grpc-load", "health:9999", "podinfo")}
	streams := m.loadBy(3, "streams", "httpbin:8080", "redis:6379", "health:9999")
	everyone := []*process{server, grpcServer, tcp, loads[0].p, loads[1].p, streams.p}
	programs := func() string {
		return fmt.Sprint(server.programOf("go-httpbin"), grpcServer.programOf("podinfo"), tcp.programOf("redis"), loads[0].p.programOf("load"), streams.p.programOf("streams"))
	}
	before := programs()

	// The three servers, with streams through them.
	up := m.upgrading("--drain", "2m", m.workloadOf(server), m.workloadOf(grpcServer), m.workloadOf(tcp))
	for _, p := range []*process{server, grpcServer, tcp} {
		eventually(t, patience, p.name+" has two proxies", func() error {
			if n := len(p.proxies()); n != 2 {
				return fmt.Errorf("%d; %s", n, up.stderr())
			}
			return nil
		})
	}
	for range 3 {
		for _, l := range append(loads, streams) {
			l.more(100)
		}
		for _, service := range []string{"httpbin.default:8080", "health.default:9999", "redis.default:6379"} {
			if n := m.instances(service); n != 1 {
				t.Errorf("%s has %d endpoints while it is upgraded", service, n)
			}
		}
	}
	if up.ended() {
		t.Errorf("the upgrade has ended although streams are open: %s%s", up.stdout(), up.stderr())
	}
	if c := streams.finish(); c.Failed != 0 {
		t.Errorf("streams broke: %v", c.Errors)
	}
	if code := up.wait(time.Minute); code != 0 || strings.Count(up.stdout(), "drained in") != 3 || strings.Contains(up.stdout(), "cut") {
		t.Errorf("%d: %s%s", code, up.stdout(), up.stderr())
	}
	t.Log(up.stdout())

	// Everybody, again and again.
	for range 3 {
		up := m.upgrading("--all")
		if code := up.wait(time.Minute); code != 0 {
			t.Fatalf("%d: %s%s", code, up.stdout(), up.stderr())
		}
		t.Log(up.stdout())
		for line := range strings.Lines(up.stdout()) {
			if !upgraded.MatchString(line) {
				t.Errorf("a line of tulle upgrade: %q", line)
			}
		}
		for _, l := range loads {
			l.more(100)
		}
	}
	for _, l := range loads {
		if c := l.finish(); c.Failed != 0 {
			t.Errorf("%d of %d requests failed: %v", c.Failed, c.OK+c.Failed, c.Errors)
		}
	}
	if now := programs(); !strings.HasPrefix(now, strings.Join(strings.Fields(before)[:3], " ")) {
		t.Errorf("the programs were the processes %s, now they are %s", before, now)
	}
	for _, p := range everyone[:3] {
		if n := len(p.proxies()); n != 1 {
			t.Errorf("%s has %d proxies", p.name, n)
		}
	}
}

// TestUpgradeCounts: what the proxies of one workload have counted, one after the other and at the same time, is the sum.
func TestUpgradeCounts(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	l := m.load(nil, "http://httpbin:8080/get")
	for range 2 {
		m.ok(m.cli("upgrade", "--all"))
		l.more(50)
	}
	c := l.finish()
	eventually(t, patience, "every request is counted once", func() error {
		n := 0
		for _, e := range decode[[]telemetry.Edge](t, m.ok(m.cli("stat", "--window", "1m", "-o", "json"))) {
			if strings.HasPrefix(e.Source, "load") {
				n += int(e.Requests)
			}
		}
		if n != c.OK {
			return fmt.Errorf("%d, want %d", n, c.OK)
		}
		return nil
	})
}

// TestUpgradeThatFails: then the old proxy carries on, and the command says in one line what happened.
func TestUpgradeThatFails(t *testing.T) {
	m := newMesh(t)
	server := m.httpbin()
	l := m.load(nil, "http://httpbin:8080/get")
	proxy := server.proxyOf()
	name := m.workloadOf(server)
	fails := func(want string, args ...string) {
		t.Helper()
		r := m.cli(append([]string{"upgrade"}, args...)...)
		if r.code != 1 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("upgrade %v: %s", args, r)
		}
		l.more(50)
		if p := server.proxies(); len(p) != 1 || p[0] != proxy {
			t.Errorf("upgrade %v: the proxies are %v, not %d", args, p, proxy)
		}
		if n := m.instances("httpbin.default:8080"); n != 1 {
			t.Errorf("upgrade %v: %d endpoints", args, n)
		}
	}
	fails("name a workload, or say --all; running here: ")
	fails(`no workload "nobody"`, "nobody")
	fails("--binary", "--binary", m.dir+"/none", name)
	fails("ended before it was ready", "--binary", "/bin/true", name)
	fails("cannot start the proxy", "--binary", writeFile(t, m.dir+"/text", "no program"), name)
	fails("not ready within 300ms", "--ready", "300ms", "--binary", self(t), name)
	m.control.killAll()
	begin := time.Now()
	r := m.cli("upgrade", name)
	if r.code != 1 || !strings.Contains(r.stderr, "control plane") {
		t.Errorf("without a control plane: %s", r)
	}
	l.more(50)
	t.Logf("without a control plane it is given up after %s: %s", time.Since(begin).Round(time.Millisecond), r.stderr)
	m.up()
	eventually(t, patience, "an upgrade", func() error {
		if r := m.cli("upgrade", name); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
	l.more(50)
	if c := l.finish(); c.Failed != 0 {
		t.Errorf("%d of %d requests failed: %v", c.Failed, c.OK+c.Failed, c.Errors)
	}
}
