package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/bench/backend"
	"github.com/tulle-mesh/tulle/bench/load"
)

// world is the processes of one measurement; close ends them all.
type world struct {
	options options
	dir     string
	procs   []*exec.Cmd
	admin   string // of a proxy that is profiled
}

func newWorld(o options) (*world, error) {
	dir, err := os.MkdirTemp(o.dir, "w")
	return &world{options: o, dir: dir}, err
}

func (w *world) close() {
	for i := len(w.procs) - 1; i >= 0; i-- {
		p := w.procs[i]
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		done := make(chan struct{})
		go func() { _ = p.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(3 * time.Second):
			_ = p.Process.Kill()
			<-done
		}
	}
}

// start runs a program until the world ends; what it says goes to a file in the world's folder.
func (w *world) start(name string, args ...string) (int, error) {
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("%d.log", len(w.procs))))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return 0, err
	}
	w.procs = append(w.procs, c)
	return c.Process.Pid, nil
}

func (w *world) file(name, text string) string {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		panic(err) // a temporary folder of our own
	}
	return path
}

// backendConf is nginx answering 100 bytes over HTTP/1.1.
const backendConf = `worker_processes 2; daemon off; pid %[1]s/backend.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; server { listen %[2]s backlog=4096; location / { return 200 "%[3]s"; } } }
`

func (w *world) nginxBackend(listen string) string {
	return w.file("backend.conf", fmt.Sprintf(backendConf, w.dir, listen, strings.Repeat("x", 100)))
}

// backendCommand answers the server for a kind of load at addr.
func (w *world) backendCommand(k load.Kind, addr string) []string {
	switch k {
	case load.HTTP1, load.Connects:
		return []string{"nginx", "-c", w.nginxBackend(addr)}
	}
	return []string{os.Args[0], "-be", "backend", addr}
}

func (w *world) backend(k load.Kind) (string, error) {
	addr := freePort()
	c := w.backendCommand(k, addr)
	if _, err := w.start(c[0], c[1:]...); err != nil {
		return "", err
	}
	return addr, waitFor(addr)
}

func serveBackend(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return backend.Serve(l)
}

// freePort answers a loopback address that nobody listens on.
func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor waits until addr accepts.
func waitFor(addr string) error {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("nothing listens on %s after 15 s", addr)
}

// settle lets closed connections leave the machine's tables.
func settle() { time.Sleep(200 * time.Millisecond) }

// generate runs the load; a request that failed is an error: what is measured has to work.
func generate(r *running, p load.Plan) (load.Result, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return load.Result{}, err
	}
	run := func(args ...string) ([]byte, error) { return exec.Command(args[0], args[1:]...).Output() }
	if r.inside != nil {
		run = r.inside
	}
	out, err := run(os.Args[0], "-be", "load", string(text))
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return load.Result{}, err
	}
	var done load.Result
	if err := json.Unmarshal(out, &done); err != nil {
		return done, fmt.Errorf("the load generator said %q: %w", out, err)
	}
	switch {
	case done.Failed > 0:
		return done, fmt.Errorf("%d connections failed: %s", done.Failed, done.FirstFail)
	case done.Done == 0:
		return done, errors.New("nothing was answered")
	}
	return done, nil
}

// cpu answers the user and system time that processes and all their descendants have used.
func cpu(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		for _, p := range append(children(pid), pid) {
			d, err := cpuOf(p)
			if err != nil {
				return 0, err
			}
			sum += d
		}
	}
	return sum, nil
}

// cpuOf reads nanoseconds on CPU per thread: the ticks of /proc/PID/stat are too coarse.
func cpuOf(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	var sum int64
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum), nil
}

// children answers all descendants of a process.
func children(pid int) []int {
	var out []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is right
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for s := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(append(out, n), children(n)...)
			}
		}
	}
	return out
}

// commandLine answers a process' arguments.
func commandLine(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: no arguments
	return strings.ReplaceAll(string(b), "\x00", " ")
}
