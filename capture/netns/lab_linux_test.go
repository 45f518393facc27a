package netns_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/capture/origdst"
	"github.com/tulle-mesh/tulle/capture/seed"
	"github.com/tulle-mesh/tulle/internal/testenv"
)

// patience is the deadline of every condition.
const patience = 10 * time.Second

// nobody is the ordinary user that the tests become.
const nobody = 65534

func TestMain(m *testing.M) {
	netns.Shim()
	if len(os.Args) == 2 && os.Args[1] == "lab-agent" {
		agent()
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "lab-forbid" {
		forbid()
		return
	}
	os.Exit(m.Run())
}

// TestRootless runs every TestLab again as an ordinary user without a capability.
func TestRootless(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLab", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "TMPDIR=/tmp"}
	out, err := cmd.CombinedOutput()
	t.Logf("as uid %d:\n%s", nobody, out)
	if err != nil {
		t.Error(err)
	}
	if n := strings.Count(string(out), "--- PASS: TestLab"); n < 8 {
		t.Errorf("only %d tests passed without root", n)
	}
}

// lab is one program in its namespace, answering commands, and the sockets around it.
type lab struct {
	t     *testing.T
	ns    *netns.Namespace
	socks []bootstrap.Socket
	in    io.WriteCloser
	out   *bufio.Reader
	seeds *seed.Pair
	ended chan *os.ProcessState
}

// begin starts the agent. It runs as root (no user namespace) or as an ordinary user (with one), as the test does.
func begin(t *testing.T, c netns.Config) *lab {
	t.Helper()
	inR, inW, err := os.Pipe()
	check(t, err)
	outR, outW, err := os.Pipe()
	check(t, err)
	if c.Path == "" {
		c.Path, c.Args = "/proc/self/exe", []string{"agent", "lab-agent"}
	}
	c.UserNamespace = netns.NeedUserNamespace()
	if (os.Geteuid() != 0) != c.UserNamespace {
		t.Fatalf("uid %d, user namespace %v", os.Geteuid(), c.UserNamespace)
	}
	c.Files = []*os.File{inR, outW, os.Stderr}
	l := &lab{t: t, in: inW, out: bufio.NewReader(outR), ended: make(chan *os.ProcessState, 1)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // see netns.Start
		var err error
		l.ns, err = netns.Start(c)
		started <- err
		if err == nil {
			st, _ := l.ns.Wait()
			l.ended <- st
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(explain(err))
	}
	inR.Close()
	outW.Close()
	t.Cleanup(func() { inW.Close(); l.ns.Process.Kill(); l.ns.Close(); outR.Close() })
	var warn []string
	if l.socks, warn, err = l.ns.Sockets(); err != nil {
		t.Fatal(explain(err))
	}
	if len(warn) > 0 {
		t.Log(warn)
	}
	l.seeds = &seed.Pair{}
	for _, v6 := range []bool{false, true} {
		s := seed.New(l.dup(bootstrap.RoleSeed, v6), l.dup(bootstrap.RoleSeedListener, v6), v6)
		if v6 {
			l.seeds.V6 = s
		} else {
			l.seeds.V4 = s
		}
	}
	t.Cleanup(l.seeds.Close)
	return l
}

func explain(err error) string {
	var st *netns.StageError
	if errors.As(err, &st) {
		return netns.Explain(err, st.Stage, netns.ReadFacts(os.Geteuid() != 0))
	}
	return err.Error()
}

// dup answers a copy of one socket's descriptor.
func (l *lab) dup(role bootstrap.Role, v6 bool) int {
	l.t.Helper()
	b := bootstrap.Bootstrap{Sockets: l.socks}
	s, ok := b.Find(role, v6, 0)
	if !ok {
		l.t.Fatalf("no socket %s, v6 %v", role, v6)
	}
	fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 3)
	check(l.t, err)
	return fd
}

// release lets the program start.
func (l *lab) release() *lab {
	l.t.Helper()
	check(l.t, l.ns.Release())
	return l
}

// ask gives the agent one command and answers its line.
func (l *lab) ask(format string, a ...any) string {
	l.t.Helper()
	if _, err := fmt.Fprintf(l.in, format+"\n", a...); err != nil {
		l.t.Fatal(err)
	}
	line, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("%s: %v", fmt.Sprintf(format, a...), err)
	}
	return strings.TrimSuffix(line, "\n")
}

// capture answers every connection that is turned to the outbound listeners with its original destination.
func (l *lab) capture() {
	for _, v6 := range []bool{false, true} {
		f := os.NewFile(uintptr(l.dup(bootstrap.RoleOutbound, v6)), "")
		ln, err := net.FileListener(f)
		check(l.t, err)
		f.Close()
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				raw, _ := c.(*net.TCPConn).SyscallConn()
				raw.Control(func(fd uintptr) {
					dst, err := origdst.Get(int(fd), v6)
					if err != nil {
						fmt.Fprintf(c, "error %v", err)
						return
					}
					fmt.Fprintf(c, "%s", dst)
				})
				c.Close()
			}
		}()
	}
}

func TestLabCapturesTCP(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	l.capture()
	for _, dst := range []string{"198.18.0.5:80", "203.0.113.9:5432", "[2001:db8::5]:443", "[fd74:756c:6c65::7]:9080", "169.254.169.254:80"} {
		got := l.ask("dial %s", dst)
		local := "169.254.7.1"
		if strings.HasPrefix(dst, "[") {
			local = "fd74::1"
		}
		if want := local + " " + dst; got != want {
			t.Errorf("dial %s: got %q, want %q", dst, got, want)
		}
	}
}

func TestLabLeavesLoopbackAlone(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	l.capture()
	for _, at := range []string{"127.0.0.1:7000", "127.3.2.1:7001", "[::1]:7002", "169.254.7.1:7003", "[fd74::1]:7004", "127.0.0.1:80"} {
		if got := l.ask("serve %s", at); got != "ok" {
			t.Errorf("serve %s: %s", at, got)
		}
		if got := l.ask("dial %s", at); !strings.HasSuffix(got, " you are "+strings.Split(got, " ")[0]) {
			t.Errorf("dial %s: %s", at, got)
		}
	}
}

func TestLabCapturesDNS(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	for _, v6 := range []bool{false, true} {
		f := os.NewFile(uintptr(l.dup(bootstrap.RoleDNSUDP, v6)), "")
		pc, err := net.FilePacketConn(f)
		check(t, err)
		f.Close()
		t.Cleanup(func() { pc.Close() })
		go func() {
			p := make([]byte, 512)
			for {
				n, from, err := pc.ReadFrom(p)
				if err != nil {
					return
				}
				pc.WriteTo(append([]byte("answer to "), p[:n]...), from)
			}
		}()
		f = os.NewFile(uintptr(l.dup(bootstrap.RoleDNSTCP, v6)), "")
		ln, err := net.FileListener(f)
		check(t, err)
		f.Close()
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "answer over TCP")
				c.Close()
			}
		}()
	}
	for _, server := range []string{"127.0.0.53:53", "127.0.0.1:53", "10.255.255.53:53", "8.8.8.8:53", "[2001:4860:4860::8888]:53", "[::1]:53"} {
		for _, verb := range []string{"udp", "udp-unconnected"} {
			if got := l.ask("%s %s", verb, server); got != "answer to hello" {
				t.Errorf("%s %s: %s", verb, server, got)
			}
		}
		if got := l.ask("dial %s", server); !strings.HasSuffix(got, "answer over TCP") {
			t.Errorf("dial %s: %s", server, got)
		}
	}
}

func TestLabRefusesTheRestAtOnce(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	l.ask("serve-udp 0.0.0.0:7777")
	for _, dst := range []string{"8.8.8.8:7777", "8.8.8.8:443", "[2001:db8::1]:443"} {
		for _, verb := range []string{"udp", "udp-unconnected"} {
			begun := time.Now()
			if got := l.ask("%s %s", verb, dst); !strings.Contains(got, "operation not permitted") {
				t.Errorf("%s %s: %s", verb, dst, got)
			}
			if d := time.Since(begun); d > time.Second {
				t.Errorf("%s %s took %v", verb, dst, d)
			}
		}
	}
	if got := l.ask("udp 127.0.0.1:7777"); got != "echo hello" {
		t.Errorf("the program's own UDP: %s", got)
	}
	for _, dst := range []string{"8.8.8.8", "198.18.0.1"} {
		if got := l.ask("icmp %s", dst); !strings.Contains(got, "not permitted") && !strings.Contains(got, "permission denied") {
			t.Errorf("icmp %s: %s", dst, got)
		}
	}
	// The program cannot steal a seed's connection.
	for _, s := range l.socks {
		if s.Role == bootstrap.RoleSeedListener {
			_, port, _ := net.SplitHostPort(s.Local)
			host := map[bool]string{false: "127.0.0.1", true: "::1"}[s.V6]
			if got := l.ask("dial %s", net.JoinHostPort(host, port)); !strings.Contains(got, "refused") {
				t.Errorf("dial to a seed listener: %s", got)
			}
		}
	}
}

func TestLabMintedSocketsReachTheProgram(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	l.capture()
	for _, at := range []string{"0.0.0.0:8080", "127.0.0.1:8081", "[::1]:8082", "[::]:8083", "10.1.2.3:8084"} {
		if got := l.ask("serve %s", at); at != "10.1.2.3:8084" && got != "ok" {
			t.Fatalf("serve %s: %s", at, got)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"", "127.0.0.1:8080"}, {"203.0.113.77", "127.0.0.1:8080"}, {"203.0.113.77", "127.0.0.1:8081"},
		{"2001:db8::77", "[::1]:8082"}, {"2001:db8::77", "[::1]:8083"}, {"", "[::1]:8083"},
		{"198.51.100.3", "169.254.7.1:8080"}, {"203.0.113.78", "10.1.2.3:8084"},
	} {
		to := netip.MustParseAddrPort(c.to)
		fd, err := l.seeds.Mint(to.Addr().Is6())
		check(t, err)
		peer, err := talk(fd, c.from, to)
		if err != nil {
			t.Errorf("%s → %s: %v", c.from, c.to, err)
			continue
		}
		want := c.from
		if want == "" {
			want = to.Addr().String()
		}
		if peer != "you are "+want {
			t.Errorf("%s → %s: program says %q", c.from, c.to, peer)
		}
	}
}

// talk binds fd to from, connects it, and reads what the program says.
func talk(fd int, from string, to netip.AddrPort) (string, error) {
	if from != "" {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(netip.MustParseAddr(from), 0))); err != nil {
			unix.Close(fd)
			return "", fmt.Errorf("bind: %w", err)
		}
	}
	unix.SetNonblock(fd, false)
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		unix.Close(fd)
		return "", fmt.Errorf("connect: %w", err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func TestLabMintsManyAtOnce(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	begun := time.Now()
	const workers, each = 4, 250
	errs := make(chan error, workers)
	for range workers {
		go func() {
			for range each {
				fd, err := l.seeds.Mint(false)
				if err != nil {
					errs <- err
					return
				}
				unix.Close(fd)
			}
			errs <- nil
		}()
	}
	for range workers {
		check(t, <-errs)
	}
	t.Logf("%d sockets in %v", workers*each, time.Since(begun))
}

func TestLabSamePortTwice(t *testing.T) {
	a := begin(t, netns.Config{}).release()
	b := begin(t, netns.Config{}).release()
	for _, l := range []*lab{a, b} {
		if got := l.ask("serve 0.0.0.0:8080"); got != "ok" {
			t.Error(got)
		}
	}
}

func TestLabForward(t *testing.T) {
	l := begin(t, netns.Config{Forward: []uint16{5432}}).release()
	for _, v6 := range []bool{false, true} {
		f := os.NewFile(uintptr(l.dup(bootstrap.RoleForward, v6)), "")
		ln, err := net.FileListener(f)
		check(t, err)
		f.Close()
		go func() {
			if c, err := ln.Accept(); err == nil {
				io.WriteString(c, "database")
				c.Close()
			}
			ln.Close()
		}()
	}
	for _, at := range []string{"127.0.0.1:5432", "[::1]:5432"} {
		if got := l.ask("dial %s", at); !strings.HasSuffix(got, " database") {
			t.Errorf("%s: %s", at, got)
		}
	}
}

func TestLabHidesFilesAndKeepsTheRest(t *testing.T) {
	secret, err := os.MkdirTemp("/tmp", "tulle-lab-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(secret) })
	check(t, os.WriteFile(filepath.Join(secret, "key"), []byte("private"), 0o600))
	ln, err := net.Listen("unix", filepath.Join(secret, "control.sock"))
	check(t, err)
	defer ln.Close()
	l := begin(t, netns.Config{Hide: []string{secret, secret + "-absent"}, ResolvConf: netns.ResolvConf("shop")}).release()
	if got := l.ask("ls %s", secret); got != "" {
		t.Errorf("the program sees %q", got)
	}
	if got := l.ask("unix %s", ln.Addr()); !strings.Contains(got, "no such file") {
		t.Errorf("control socket: %s", got)
	}
	if got := l.ask("umount %s", secret); !strings.Contains(got, "not permitted") {
		t.Errorf("umount: %s", got)
	}
	if got := l.ask("write %s/x", secret); !strings.Contains(got, "read-only") {
		t.Errorf("write into the hidden folder: %s", got)
	}
	if got := l.ask("cat /etc/resolv.conf"); !strings.Contains(got, "search shop.svc.cluster.local svc.cluster.local cluster.local") {
		t.Errorf("resolv.conf: %s", got)
	}
	if got := l.ask("cat /proc/self/mountinfo"); strings.Count(got, " / /tmp ") > 1 || strings.Contains(got, "size=64k") && strings.Contains(got, " / /tmp rw,nosuid,nodev,noexec") {
		t.Errorf("scratch mount is left: %s", got)
	}
	if got := l.ask("ls /tmp"); !strings.Contains(got, filepath.Base(secret)) {
		t.Errorf("/tmp is not the machine's: %s", got)
	}
	if _, err := os.ReadFile(filepath.Join(secret, "key")); err != nil {
		t.Errorf("hidden from the machine as well: %v", err)
	}
}

// TestLabEndpoint: the program's own socket is there for it alone, in a folder that is hidden from it, whatever the order of the
// folders, and cannot be taken away or replaced.
func TestLabEndpoint(t *testing.T) {
	outer, err := os.MkdirTemp("/tmp", "tulle-lab-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(outer) })
	inner := filepath.Join(outer, "inner")
	check(t, os.Mkdir(inner, 0o700))
	check(t, os.WriteFile(filepath.Join(outer, "key"), []byte("private"), 0o600))
	path := filepath.Join(outer, "workload.sock")
	l := begin(t, netns.Config{Hide: []string{outer, inner}, Endpoint: path}).release()
	ln := os.NewFile(uintptr(l.dup(bootstrap.RoleWorkload, false)), "workload")
	defer ln.Close()
	if got := l.ask("ls %s", outer); got != "workload.sock" {
		t.Errorf("the program sees %q", got)
	}
	if got := l.ask("unix %s", path); got != "connected" {
		t.Errorf("connect: %s", got)
	}
	if got := l.ask("write %s", path); !strings.Contains(got, "error") {
		t.Errorf("write: %s", got)
	}
	if got := l.ask("write %s/x", outer); !strings.Contains(got, "read-only") {
		t.Errorf("beside it: %s", got)
	}
	if got := l.ask("umount %s", outer); !strings.Contains(got, "not permitted") {
		t.Errorf("umount: %s", got)
	}
	if got := l.ask("env %s", netns.EndpointVariable); got != "unix://"+path {
		t.Errorf("the variable is %q", got)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine sees it: %v", err)
	}
}

func TestLabCapabilitiesAreGone(t *testing.T) {
	l := begin(t, netns.Config{}).release()
	status := l.ask("cat /proc/self/status")
	root := os.Geteuid() == 0
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		_, rest, _ := strings.Cut(status, set+":\t")
		v, err := strconv.ParseUint(rest[:16], 16, 64)
		check(t, err)
		switch {
		case !root && v != 0:
			t.Errorf("%s is %x", set, v)
		case root && v&(1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_RAW|1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_SYS_MODULE|1<<unix.CAP_BPF|1<<unix.CAP_PERFMON) != 0:
			t.Errorf("%s still has one of the dropped: %x", set, v)
		case root && set == "CapEff" && v&(1<<unix.CAP_SETUID|1<<unix.CAP_CHOWN|1<<unix.CAP_NET_BIND_SERVICE) == 0:
			t.Errorf("%s lost too much: %x", set, v)
		}
	}
	if got, want := l.ask("uid"), fmt.Sprintf("%d %d", os.Geteuid(), os.Getegid()); got != want {
		t.Errorf("ids %s, want %s", got, want)
	}
	if got := l.ask("mark"); !strings.Contains(got, "not permitted") {
		t.Errorf("the program may mark its sockets: %s", got)
	}
	if got := l.ask("setns %d", os.Getpid()); !strings.Contains(got, "not permitted") && !strings.Contains(got, "permission denied") {
		t.Errorf("the program may walk out: %s", got)
	}
	if got := l.ask("ls /proc/%d/root", os.Getpid()); !strings.Contains(got, "denied") && !strings.Contains(got, "not permitted") {
		t.Errorf("the program may see its keeper's files: %s", got)
	}
	if got := l.ask("read-mem %d", os.Getpid()); !strings.Contains(got, "denied") && !strings.Contains(got, "not permitted") {
		t.Errorf("the program may read its keeper's memory: %s", got)
	}
}

func TestLabExitAndExec(t *testing.T) {
	for _, c := range []struct {
		path string
		args []string
		code int // of the program, or -1: see exec
		exec int
	}{
		{"/bin/sh", []string{"sh", "-c", "exit 37"}, 37, 0},
		{"/no/such/program", []string{"x"}, -1, 127},
		{"/etc/passwd", []string{"x"}, -1, 126},
		{"/tmp", []string{"x"}, -1, 126},
	} {
		l := begin(t, netns.Config{Path: c.path, Args: c.args})
		err := l.ns.Release()
		var ee *netns.ExecError
		switch {
		case c.exec == 0 && err != nil, c.exec != 0 && !errors.As(err, &ee):
			t.Errorf("%s: %v", c.path, err)
			continue
		case c.exec != 0 && ee.Code() != c.exec:
			t.Errorf("%s: code %d, want %d", c.path, ee.Code(), c.exec)
		}
		select {
		case st := <-l.ended:
			if c.code >= 0 && st.ExitCode() != c.code {
				t.Errorf("%s: %v", c.path, st)
			}
		case <-time.After(patience):
			t.Errorf("%s: did not end", c.path)
		}
	}
}

// TestRefusalIsExplained has a machine that really forbids namespaces: in a user namespace of its own a test may set
// the limit to 0.
func TestRefusalIsExplained(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.Command("/proc/self/exe", "lab-forbid")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	check(t, err)
	want := "network namespaces are switched off or used up (user.max_net_namespaces is 0): raise it with 'sudo sysctl user.max_net_namespaces=65536'\n" +
		"user namespaces are switched off or used up (user.max_user_namespaces is 0): raise it with 'sudo sysctl user.max_user_namespaces=65536', or run as root\n"
	if string(out) != want {
		t.Errorf("got:\n%swant:\n%s", out, want)
	}
}

func forbid() {
	runtime.LockOSThread()
	for _, limit := range []string{"max_net_namespaces", "max_user_namespaces"} {
		file := "/proc/sys/user/" + limit
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			fmt.Println(err)
		}
		userNamespace := limit == "max_user_namespaces"
		_, err := netns.Start(netns.Config{Path: "/bin/true", Args: []string{"true"}, UserNamespace: userNamespace})
		var st *netns.StageError
		if !errors.As(err, &st) {
			fmt.Println("no refusal:", err)
			continue
		}
		fmt.Println(netns.Explain(err, st.Stage, netns.ReadFacts(userNamespace)))
		os.WriteFile(file, []byte("100"), 0)
	}
}

func TestLabEndsUnreleased(t *testing.T) {
	l := begin(t, netns.Config{})
	l.ns.Abandon()
	if err := unix.Kill(l.ns.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the shim is still there: %v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// agent is the program inside: one command per line, one line of answer.
func agent() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		out, err := act(f[0], append(f[1:], "")[0])
		if err != nil {
			out = "error: " + err.Error()
		}
		fmt.Println(strings.ReplaceAll(out, "\n", " | "))
	}
	if err := in.Err(); err != nil {
		fmt.Println("error:", err)
	}
}

func act(verb, arg string) (string, error) {
	switch verb {
	case "dial":
		c, err := net.DialTimeout("tcp", arg, 3*time.Second)
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		b, err := io.ReadAll(c)
		return netip.MustParseAddrPort(c.LocalAddr().String()).Addr().String() + " " + string(b), err
	case "serve":
		return "ok", serve(arg)
	case "serve-udp":
		return "ok", serveUDP(arg)
	case "udp", "udp-unconnected":
		return udp(arg, verb == "udp")
	case "icmp":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		return "sent", unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 0}, 0, sockaddr(netip.AddrPortFrom(netip.MustParseAddr(arg), 0)))
	case "ls":
		e, err := os.ReadDir(arg)
		var names []string
		for _, x := range e {
			names = append(names, x.Name())
		}
		return strings.Join(names, " "), err
	case "cat":
		b, err := os.ReadFile(arg)
		return string(bytes.TrimSpace(b)), err
	case "write":
		return "written", os.WriteFile(arg, nil, 0o600)
	case "env":
		return os.Getenv(arg), nil
	case "unix":
		c, err := net.Dial("unix", arg)
		if err == nil {
			c.Close()
		}
		return "connected", err
	case "umount":
		return "unmounted", unix.Unmount(arg, 0)
	case "uid":
		return fmt.Sprintf("%d %d", os.Geteuid(), os.Getegid()), nil
	case "mark":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		return "marked", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x74756c65)
	case "setns":
		f, err := os.Open("/proc/" + arg + "/ns/net")
		if err != nil {
			return "", err
		}
		defer f.Close()
		return "out", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	case "read-mem":
		_, err := os.Open("/proc/" + arg + "/mem")
		return "opened", err
	}
	return "", fmt.Errorf("unknown command %q", verb)
}

func serve(at string) error {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
	}}
	network := "tcp4"
	if strings.HasPrefix(at, "[") {
		network = "tcp6"
	}
	ln, err := lc.Listen(context.Background(), network, at)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "you are %s", netip.MustParseAddrPort(c.RemoteAddr().String()).Addr())
			c.Close()
		}
	}()
	return nil
}

func serveUDP(at string) error {
	pc, err := net.ListenPacket("udp4", at)
	if err != nil {
		return err
	}
	go func() {
		p := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte("echo "), p[:n]...), from)
		}
	}()
	return nil
}

// udp sends "hello" and answers what comes back.
func udp(to string, connected bool) (string, error) {
	network := "udp4"
	if strings.HasPrefix(to, "[") {
		network = "udp6"
	}
	addr, err := net.ResolveUDPAddr(network, to)
	if err != nil {
		return "", err
	}
	var c *net.UDPConn
	if connected {
		c, err = net.DialUDP(network, nil, addr)
	} else {
		c, err = net.ListenUDP(network, nil)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if connected {
		_, err = c.Write([]byte("hello"))
	} else {
		_, err = c.WriteTo([]byte("hello"), addr)
	}
	if err != nil {
		return "", err
	}
	p := make([]byte, 512)
	n, from, err := c.ReadFromUDPAddrPort(p)
	if want := netip.MustParseAddrPort(to); err == nil && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != want {
		return "", fmt.Errorf("answer from %s instead of %s", from, want)
	}
	return string(p[:n]), err
}
