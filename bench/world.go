package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// world is the processes of one measurement; close ends them all.
type world struct {
	dir   string
	procs []*exec.Cmd
}

func newWorld(o options) (*world, error) {
	dir, err := os.MkdirTemp(o.dir, "w")
	return &world{dir: dir}, err
}

func (w *world) close() {
	for i := len(w.procs) - 1; i >= 0; i-- {
		p := w.procs[i]
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		done := make(chan struct{})
		go func() { _ = p.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(8 * time.Second):
			_ = p.Process.Kill()
			<-done
		}
	}
}

// start runs a program until the world ends; what it says goes to a file, which an error quotes.
func (w *world) start(name string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("%d.log", len(w.procs))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return nil, err
	}
	w.procs = append(w.procs, c)
	return c, nil
}

func (w *world) file(name, text string) string {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		panic(err) // a temporary folder of our own
	}
	return path
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

var (
	requestsLine = regexp.MustCompile(`(\d+) requests in`)
	errorLine    = regexp.MustCompile(`(Non-2xx or 3xx responses: \d+|Socket errors: connect [1-9].*|Socket errors:.*read [1-9].*)`)
)

// load runs wrk and answers how many requests were answered; any error of any request is an error.
func load(o options, r running, connections int, d time.Duration) (int, error) {
	args := []string{"-t", strconv.Itoa(min(2, connections)), "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", int(d.Seconds())), r.url}
	ctx, cancel := context.WithTimeout(context.Background(), d+30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "wrk", args...)
	if r.wrk != nil {
		c = r.wrk(args...)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if m := errorLine.Find(out); m != nil {
		return 0, fmt.Errorf("wrk: %s", m)
	}
	m := requestsLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk: cannot read %q", out)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err == nil && n == 0 {
		err = errors.New("wrk: not one request was answered")
	}
	return n, err
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
