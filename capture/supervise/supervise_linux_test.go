package supervise_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/capture/origdst"
	"github.com/tulle-mesh/tulle/capture/supervise"
	"github.com/tulle-mesh/tulle/internal/testenv"
)

const patience = 10 * time.Second

const nobody = 65534

// TestMain makes this binary everything at once: the shim, a supervisor process, a proxy, a program.
func TestMain(m *testing.M) {
	netns.Shim()
	if len(os.Args) >= 2 {
		switch os.Args[1] {
		case "lab-supervisor":
			superviseMain(os.Args[2])
		case "lab-proxy":
			proxyMain(os.Args[2])
		case "lab-counter":
			counterMain()
		case "lab-dialer":
			dialerMain()
		}
	}
	os.Exit(m.Run())
}

// setup is what a supervisor process is told.
type setup struct {
	Args    []string // the program
	Dir     string   // for the proxy's log and the test's wishes
	Mode    string   // of the proxy
	Ports   []bootstrap.Port
	WaitFor []string
}

func superviseMain(arg string) {
	var s setup
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		panic(err)
	}
	path, err := exec.LookPath(s.Args[0])
	if err != nil {
		path = s.Args[0]
	}
	code, err := supervise.Run(supervise.Config{
		Path: path, Args: s.Args,
		Bootstrap: bootstrap.Bootstrap{
			Workload: "w-1", Namespace: "default", Service: "w", Ports: s.Ports, WaitFor: s.WaitFor, DataDir: s.Dir,
			Admin: filepath.Join(s.Dir, "proxies", "w-1.sock"),
		},
		MeshHost: "127.0.0.1", ProxyArgs: []string{"lab-proxy", s.Mode},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(code)
}

// proxyMain is a proxy of few words: it answers every captured connection with its process id.
func proxyMain(mode string) {
	b, link, err := bootstrap.Open()
	if err != nil {
		panic(err)
	}
	log, err := os.OpenFile(filepath.Join(b.DataDir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	note := func(format string, a ...any) { fmt.Fprintf(log, format+"\n", a...) }
	note("start %d pid %d program %d withdrawn %v", b.Starts, os.Getpid(), b.Program, b.Withdrawn)
	note("identity %d %q", b.Starts, b.Identity)
	for _, r := range []bootstrap.Role{bootstrap.RoleOutbound, bootstrap.RoleMesh, bootstrap.RoleMetrics, bootstrap.RoleAdmin} {
		if _, ok := b.Find(r, false, 0); !ok {
			note("no socket %s", r)
		}
	}
	s, _ := b.Find(bootstrap.RoleOutbound, false, 0)
	ln, err := net.FileListener(os.NewFile(uintptr(s.FD), ""))
	if err != nil {
		panic(err)
	}
	if mode == "fails" {
		link.Send(bootstrap.Message{Event: bootstrap.EventFailed, Error: "no control plane at /x; start one with 'tulle up'"})
		os.Exit(1)
	}
	if mode == "crashes" {
		os.Exit(3)
	}
	if b.Overlap {
		note("overlap %d announced %v", b.Starts, b.Announced)
		switch wish, _ := os.ReadFile(filepath.Join(b.DataDir, "next")); string(wish) {
		case "fails":
			link.Send(bootstrap.Message{Event: bootstrap.EventFailed, Error: "the control plane is not reachable"})
			os.Exit(1)
		case "crashes":
			os.Exit(3)
		case "hangs":
			link.Next()
			note("link of %d has ended", b.Starts)
			os.Exit(1)
		}
	}
	link.Send(bootstrap.Message{Event: bootstrap.EventIdentity, Identity: fmt.Appendf(nil, "of start %d", b.Starts)})
	// Whoever is answered by the first proxy may order an upgrade: by then it has said that the workload is announced.
	announced := make(chan struct{})
	if b.Starts > 0 {
		close(announced)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			<-announced
			raw, _ := c.(*net.TCPConn).SyscallConn()
			raw.Control(func(fd uintptr) {
				dst, _ := origdst.Get(int(fd), false)
				fmt.Fprintf(c, "%d %s", os.Getpid(), dst)
			})
			c.Close()
		}
	}()
	link.Send(bootstrap.Message{Event: bootstrap.EventReady, Version: fmt.Sprintf("v%d", b.Starts)})
	for {
		m, err := link.Next()
		if err != nil {
			note("link: %v", err)
			os.Exit(0)
		}
		note("%s %v", m.Cmd, m.Services)
		switch m.Cmd {
		case bootstrap.CmdWait:
			go func() { // as in the real one, other commands are heard meanwhile
				if await(filepath.Join(b.DataDir, "there")) {
					link.Send(bootstrap.Message{Event: bootstrap.EventWaited})
				}
			}()
		case bootstrap.CmdWithdraw:
			await(filepath.Join(b.DataDir, "acknowledged"))
			link.Send(bootstrap.Message{Event: bootstrap.EventWithdrawn})
		case bootstrap.CmdStarted:
			link.Send(bootstrap.Message{Event: bootstrap.EventAnnounced})
			if b.Starts == 0 {
				close(announced)
			}
		case bootstrap.CmdRetire:
			ln.Close()
			if m.Within > 5000 {
				go func() { // as in the real one, the goodbye is heard meanwhile
					await(filepath.Join(b.DataDir, "drained"))
					link.Send(bootstrap.Message{Event: bootstrap.EventRetired})
					os.Exit(0)
				}()
				continue
			}
			link.Send(bootstrap.Message{Event: bootstrap.EventRetired, Open: 3})
		case bootstrap.CmdGoodbye:
			if mode == "stubborn" {
				continue
			}
			os.Exit(0)
		}
	}
}

// dialerMain is a program that dials for every line it reads.
func dialerMain() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		c, err := net.DialTimeout("tcp", in.Text(), patience)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		b, err := io.ReadAll(c)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println(string(b))
	}
	if in.Err() != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// await blocks until path exists.
func await(path string) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) { // poll
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// run is one supervisor process.
type run struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	err  *bytes.Buffer
	done chan error
}

// both runs f as root and as an ordinary user.
func both(t *testing.T, f func(t *testing.T, begin func(setup) *run)) {
	testenv.NeedRoot(t)
	for _, uid := range []int{0, nobody} {
		t.Run(fmt.Sprintf("uid=%d", uid), func(t *testing.T) {
			f(t, func(s setup) *run { return start(t, uid, s) })
		})
	}
}

func start(t *testing.T, uid int, s setup) *run {
	t.Helper()
	if s.Dir == "" {
		dir, err := os.MkdirTemp("/tmp", "tulle-sup-")
		check(t, err)
		check(t, os.Chown(dir, uid, uid))
		t.Cleanup(func() { os.RemoveAll(dir) })
		s.Dir = dir
	}
	arg, err := json.Marshal(s)
	check(t, err)
	r := &run{t: t, dir: s.Dir, err: new(bytes.Buffer), done: make(chan error, 1)}
	r.cmd = exec.Command("/proc/self/exe", "lab-supervisor", string(arg))
	r.cmd.Dir = "/"
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GREETING=hello"}
	r.cmd.Stderr = r.err
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	r.in, err = r.cmd.StdinPipe()
	check(t, err)
	outR, outW, err := os.Pipe()
	check(t, err)
	r.cmd.Stdout = outW
	r.out = bufio.NewReader(outR)
	check(t, r.cmd.Start())
	outW.Close()
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		outR.Close()
		if t.Failed() {
			t.Logf("stderr: %s\nproxy: %s", r.err, r.log())
		}
	})
	return r
}

func (r *run) log() string { b, _ := os.ReadFile(filepath.Join(r.dir, "log")); return string(b) }

// line reads one line of the program's output.
func (r *run) line() string {
	r.t.Helper()
	got := make(chan string, 1)
	go func() { s, _ := r.out.ReadString('\n'); got <- s }()
	select {
	case s := <-got:
		return strings.TrimSuffix(s, "\n")
	case <-time.After(patience):
		r.t.Fatal("no line from the program in time")
	}
	return ""
}

// code waits for the supervisor's end.
func (r *run) code() int {
	r.t.Helper()
	select {
	case <-r.done:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		r.t.Fatal("the supervisor did not end in time")
	}
	return -1
}

func (r *run) touch(name string) { check(r.t, os.WriteFile(filepath.Join(r.dir, name), nil, 0o644)) }

func (r *run) signal(sig syscall.Signal) { check(r.t, r.cmd.Process.Signal(sig)) }

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) { // poll
		if cond() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func TestStdioEnvironmentAndExitCode(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", `echo "$GREETING $1"; pwd; cat; exit 7`, "sh", "a b"}})
		io.WriteString(r.in, "from stdin\n")
		r.in.Close()
		for _, want := range []string{"hello a b", "/", "from stdin"} {
			if got := r.line(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if c := r.code(); c != 7 {
			t.Errorf("exit code %d", c)
		}
		if r.err.Len() > 0 {
			t.Errorf("the supervisor said something: %s", r.err)
		}
		if log := r.log(); !strings.HasSuffix(log, "goodbye []\n") || !strings.Contains(log, "started") || strings.Contains(log, "no socket") {
			t.Errorf("proxy: %s", log)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "proxies", "w-1.sock")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("admin socket is left: %v", err)
		}
	})
}

func TestProgramThatCannotRun(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		for path, want := range map[string]int{"/no/such": 127, "/etc/passwd": 126} {
			r := begin(setup{Args: []string{path}})
			if c := r.code(); c != want {
				t.Errorf("%s: exit code %d, want %d", path, c, want)
			}
			if s := r.err.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, path+": ") {
				t.Errorf("%s: %q", path, s)
			}
		}
	})
}

func TestProxyThatCannotWork(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"echo", "must not run"}, Mode: "fails"})
		if c := r.code(); c != 1 || r.err.String() != "error: no control plane at /x; start one with 'tulle up'\n" {
			t.Errorf("code %d: %s", c, r.err)
		}
		if got := r.line(); got != "" {
			t.Errorf("the program ran: %s", got)
		}
		r = begin(setup{Args: []string{"echo", "must not run"}, Mode: "crashes"})
		if c := r.code(); c != 1 || !strings.Contains(r.err.String(), "the proxy ended 3 times before it was ready (exit status 3)") {
			t.Errorf("code %d: %s", c, r.err)
		}
	})
}

func TestProgramDoesNotNoticeACrashedProxy(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		before := ""
		for round := range 4 {
			fmt.Fprintln(r.in, "198.18.0.5:80")
			pid, dst, _ := strings.Cut(r.line(), " ")
			if dst != "198.18.0.5:80" || pid == before {
				t.Fatalf("round %d: pid %q (before %q), destination %q", round, pid, before, dst)
			}
			before = pid
			n, err := strconv.Atoi(pid)
			check(t, err)
			check(t, unix.Kill(n, unix.SIGKILL))
		}
		r.in.Close()
		if c := r.code(); c != 0 {
			t.Errorf("exit code %d", c)
		}
		log := r.log()
		for _, want := range []string{`identity 0 ""`, `identity 1 "of start 0"`, `identity 3 "of start 2"`} {
			if !strings.Contains(log, want) {
				t.Errorf("proxies were given another identity, want %s: %s", want, log)
			}
		}
		if !strings.Contains(log, "start 3 pid") || strings.Contains(log, "start 3 pid 0 program 0") {
			t.Errorf("proxy: %s", log)
		}
	})
}

const trapping = `for s in TERM INT HUP USR1 USR2 QUIT; do trap "echo $s" $s; done; trap 'exit 5' WINCH; echo up; while :; do sleep 0.02; done`

func TestTermWithdrawsFirst(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", trapping}, Ports: []bootstrap.Port{{Port: 80, Target: 80}}})
		r.line()
		r.signal(unix.SIGTERM)
		until(t, "withdraw", func() bool { return strings.Contains(r.log(), "withdraw [") })
		r.signal(unix.SIGUSR1) // passes at once, although SIGTERM waits
		if got := r.line(); got != "USR1" {
			t.Errorf("the program got %s before the withdrawal was acknowledged", got)
		}
		r.touch("acknowledged")
		if got := r.line(); got != "TERM" {
			t.Errorf("got %s", got)
		}
		r.signal(unix.SIGWINCH)
		if c := r.code(); c != 5 {
			t.Errorf("exit code %d", c)
		}
	})
}

func TestTermDoesNotWaitForEver(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", trapping}, Ports: []bootstrap.Port{{Port: 80, Target: 80}}})
		r.line()
		begun := time.Now()
		r.signal(unix.SIGTERM)
		until(t, "withdraw", func() bool { return strings.Contains(r.log(), "withdraw [") })
		r.signal(unix.SIGTERM)
		if got := r.line(); got != "TERM" || time.Since(begun) > 1500*time.Millisecond {
			t.Errorf("second SIGTERM: %q after %v", got, time.Since(begun))
		}
		r.signal(unix.SIGWINCH)
		r.touch("acknowledged") // or the lab's proxy would not hear the goodbye
		r.code()

		r = begin(setup{Args: []string{"sh", "-c", trapping}, Ports: []bootstrap.Port{{Port: 80, Target: 80}}})
		r.line()
		begun = time.Now()
		r.signal(unix.SIGTERM)
		if got, d := r.line(), time.Since(begun); got != "TERM" || d < 1900*time.Millisecond || d > 4*time.Second {
			t.Errorf("without an answer: %q after %v, want 2 s", got, d)
		}
		r.signal(unix.SIGWINCH)
		r.touch("acknowledged")
		r.code()
	})
}

func TestSignalsPass(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", trapping}})
		r.line()
		for _, s := range []struct {
			sig  syscall.Signal
			name string
		}{{unix.SIGHUP, "HUP"}, {unix.SIGINT, "INT"}, {unix.SIGQUIT, "QUIT"}, {unix.SIGUSR1, "USR1"}, {unix.SIGUSR2, "USR2"}, {unix.SIGTERM, "TERM"}} {
			r.signal(s.sig)
			if got := r.line(); got != s.name {
				t.Errorf("sent %s, got %s", s.name, got)
			}
		}
		r.signal(unix.SIGWINCH)
		if c := r.code(); c != 5 {
			t.Errorf("exit code %d", c)
		}
		r = begin(setup{Args: []string{"sh", "-c", "kill -SEGV $$"}})
		if c := r.code(); c != 128+int(unix.SIGSEGV) {
			t.Errorf("exit code %d of a program that a signal ended", c)
		}
	})
}

func TestStopAndContinue(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", `echo $$; read x; echo "$x"`}})
		pid, err := strconv.Atoi(r.line())
		check(t, err)
		r.signal(unix.SIGTSTP)
		until(t, "both stopped", func() bool { return state(pid) == "T" && state(r.cmd.Process.Pid) == "T" })
		r.signal(unix.SIGCONT)
		io.WriteString(r.in, "again\n")
		if got := r.line(); got != "again" {
			t.Errorf("got %q", got)
		}
		r.code()
	})
}

func TestNobodyOutlivesTheSupervisor(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", `trap 'echo TERM; exit' TERM; echo $$; while :; do sleep 0.02; done`}})
		program, err := strconv.Atoi(r.line())
		check(t, err)
		var proxy int
		until(t, "proxy", func() bool {
			_, rest, _ := strings.Cut(r.log(), " pid ")
			fmt.Sscan(rest, &proxy)
			return proxy != 0
		})
		check(t, r.cmd.Process.Kill())
		if got := r.line(); got != "TERM" {
			t.Errorf("the program got %q", got)
		}
		until(t, "program and proxy gone", func() bool { return gone(program) && gone(proxy) })
	})
}

func TestWaitFor(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"sh", "-c", "ls -d $0/there", "."}, WaitFor: []string{"cart", "db.shop"}})
		until(t, "wait", func() bool { return strings.Contains(r.log(), "wait [cart db.shop]") })
		if strings.Contains(r.log(), "started") {
			t.Error("the program was started before what it waits for was there")
		}
		r.touch("there")
		r.code()
		if !strings.Contains(r.log(), "started") {
			t.Error("never started")
		}
	})
}

func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	return string(rest[:1])
}

func gone(pid int) bool { s := state(pid); return s == "" || s == "Z" }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSignalBeforeTheProgramStarts(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"echo", "must not run"}, WaitFor: []string{"cart"}})
		until(t, "wait", func() bool { return strings.Contains(r.log(), "wait [cart]") })
		r.signal(unix.SIGTERM)
		if c := r.code(); c != 128+int(unix.SIGTERM) || strings.Contains(r.log(), "started") {
			t.Errorf("exit code %d: %s", c, r.log())
		}
		if got := r.line(); got != "" {
			t.Errorf("the program ran: %s", got)
		}
	})
}

func TestStubbornProxyIsEnded(t *testing.T) {
	testenv.NeedRoot(t)
	r := start(t, 0, setup{Args: []string{"sh", "-c", "exit 4"}, Mode: "stubborn"})
	if c := r.code(); c != 4 || !strings.Contains(r.err.String(), "did not end in time") {
		t.Errorf("exit code %d: %s", c, r.err)
	}
	var proxy int
	_, rest, _ := strings.Cut(r.log(), " pid ")
	fmt.Sscan(rest, &proxy)
	until(t, "proxy gone", func() bool { return proxy != 0 && gone(proxy) })
}
