//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/nft"
)

// leakMain serves HTTP on port 8080, and tries all the time to send datagrams past its proxy.
func leakMain(args []string) error {
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			if c, err := net.Dial("udp", args[0]); err == nil {
				fmt.Fprint(c, args[1])
				c.Close()
			}
		}
	}()
	return http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
}

// sinkMain prints what datagrams say.
func sinkMain(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	for p := make([]byte, 100); ; {
		n, _, err := c.ReadFrom(p)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", p[:n])
	}
}

// inNetwork runs f in the network of a process; only root may.
func inNetwork(t *testing.T, pid int, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// broken is a workload whose capture a test breaks.
type broken struct {
	t    *testing.T
	m    *mesh
	p    *process
	name string
	pid  int // of its program
}

func (m *mesh) leaking(t *testing.T, name string, flags ...string) *broken {
	t.Helper()
	p := m.run(append([]string{"--service", name, "--port", "8080", "--ready", "http:/"}, flags...), self(t), "leak", "192.0.2.77:9", name)
	p.expects = "does not go through its proxy"
	m.announced(p)
	return &broken{t, m, p, name, p.programOf("leak")}
}

// flush deletes all rules of its network.
func (b *broken) flush() {
	b.t.Helper()
	inNetwork(b.t, b.pid, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
}

// wire connects its network to another one, round the proxy.
func (b *broken) wire(to *process) {
	b.t.Helper()
	b.in(b.pid, fmt.Sprintf("ip link add way0 type veth peer name way1 netns %d", to.pid()))
	b.in(to.pid(), "ip address add 192.0.2.77/24 dev way1; ip link set way1 up")
	b.in(b.pid, "ip address add 192.0.2.1/24 dev way0; ip route del local default dev lo table local; ip link set way0 up")
}

// mend makes everything as it was.
func (b *broken) mend() {
	b.t.Helper()
	b.in(b.pid, "ip link del way0; ip route add local default dev lo src 169.254.7.1 table local")
	inNetwork(b.t, b.pid, func() error {
		return nft.Apply(nft.Build(nft.Config{Outbound: bootstrap.OutboundPort, DNS: bootstrap.DNSPort, Own: []netip.Addr{bootstrap.OwnV4, bootstrap.OwnV6}}))
	})
}

// reached asks its port from the other network, round the proxy, and answers what came of that within a second.
func (b *broken) reached(from *process) string {
	b.t.Helper()
	return b.in(from.pid(), "timeout 1 "+self(b.t)+" dial 192.0.2.1:8080 \"$(printf 'GET / HTTP/1.0\\r\\n\\r\\n.')\" || true")
}

// in runs a script in the network of a process.
func (b *broken) in(pid int, script string) string {
	b.t.Helper()
	r := finish(b.t, exec.Command(program(b.t, "nsenter", "util-linux"), "-t", fmt.Sprint(pid), "-n", "sh", "-ec", script), patience)
	if r.code != 0 {
		b.t.Fatalf("%s: %s", script, r)
	}
	return r.stdout
}

// alarm waits until the mesh says that capture is broken, or is not.
func (b *broken) alarm(want bool) {
	b.t.Helper()
	eventually(b.t, patience, fmt.Sprintf("%s: the alarm is %v", b.name, want), func() error {
		var said []string
		for _, a := range b.m.status().Alarms {
			if strings.HasPrefix(a.What, "capture of workload default/"+b.name+"-") {
				said = append(said, a.Message)
			}
		}
		works := "tulle_capture_works 1"
		if want {
			works = "tulle_capture_works 0"
		}
		if (len(said) > 0) != want {
			return fmt.Errorf("%q", said)
		}
		if text, _ := b.get("/metrics"); !strings.Contains(text, works) {
			return errors.New("not " + works)
		}
		return nil
	})
}

// get asks the proxy's own port.
func (b *broken) get(path string) (string, int) {
	for _, w := range b.m.status().Workloads {
		if w.Service == b.name {
			return getText(b.t, "http://"+w.Metrics+path)
		}
	}
	return "", 0
}

func getText(t testing.TB, url string) (string, int) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return err.Error(), 0
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error(), 0
	}
	return string(text), r.StatusCode
}

// TestCaptureIsTested: whoever breaks the network of a workload raises an alarm, and where it fails closed nothing gets out; when it is
// mended the alarm ends. Of a workload of root's, and of one of an ordinary user's; breaking it takes root.
func TestCaptureIsTested(t *testing.T) {
	users := map[string][]string{"an ordinary user": asNobody(t)}
	if isRoot() {
		users["root"] = nil
	}
	for name, on := range users {
		t.Run(name, func(t *testing.T) {
			m := &mesh{t: t, tulle: binary(t, "tulle"), http: freeAddress(t), grpc: freeAddress(t), on: on}
			m.dir = tempDir(t)
			if on != nil {
				m.dir = ownedByNobody(t, filepath.Join(m.dir, "n"))
			}
			m.data = filepath.Join(m.dir, "d")
			m.up()
			open, closed := m.leaking(t, "open"), m.leaking(t, "closed", "--fail-closed")
			open.alarm(false)
			closed.alarm(false)
			if isRoot() {
				breakCapture(t, m, open, closed)
			}
		})
	}
}

func breakCapture(t *testing.T, m *mesh, open, closed *broken) {
	sink := func(name string) *process {
		return start(t, "sink of "+name, exec.Command(program(t, "unshare", "util-linux"), "-n", self(t), "sink", ":9"))
	}
	caught, missed := sink("open"), sink("closed")
	for _, b := range []*broken{open, closed} {
		b.flush()
		b.alarm(true)
	}
	if text, code := open.get("/ready"); code != http.StatusOK {
		t.Errorf("with an alarm alone the workload goes on: %d %s", code, text)
	}
	if text, code := closed.get("/ready"); code != http.StatusServiceUnavailable || !strings.Contains(text, "proxy") {
		t.Errorf("it fails closed: %d %s", code, text)
	}
	if m.instances("open.default:8080") != 1 {
		t.Error("open has gone")
	}
	eventually(t, patience, "the one that fails closed has left its service", func() error {
		if n := m.instances("closed.default:8080"); n > 0 {
			return fmt.Errorf("%d endpoints", n)
		}
		return nil
	})
	if r := m.cli("check"); r.code == 0 || !strings.Contains(r.stdout, "capture of workload default/open-") {
		t.Errorf("tulle check: %s", r)
	}
	closed.wire(missed)
	if text := closed.reached(missed); strings.Contains(text, "HTTP/1") {
		t.Errorf("the port of the one that fails closed is reached round its proxy: %s", text)
	}
	if missed.stdout() != "" {
		t.Error("something of what fails closed got out")
	}
	open.wire(caught)
	eventually(t, patience, "without that it does", func() error {
		if !strings.Contains(caught.stdout(), "open") {
			return errors.New("nothing did")
		}
		if text := open.reached(caught); !strings.Contains(text, "HTTP/1") {
			return fmt.Errorf("its port is not reached: %s", text)
		}
		return nil
	})
	for _, b := range []*broken{open, closed} {
		b.mend()
		b.alarm(false)
		m.announced(b.p)
		if !strings.Contains(b.p.stderr(), "does not go through its proxy") || !strings.Contains(b.p.stderr(), "goes through its proxy again") {
			t.Errorf("%s: the log: %s", b.name, tail(b.p.stderr()))
		}
	}
}
