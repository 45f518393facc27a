//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is one that a test has started. What it writes goes to files.
type process struct {
	t       testing.TB
	name    string
	cmd     *exec.Cmd
	out     string // path
	err     string // path
	started time.Time
	expects string        // in lines of level ERROR that the test has brought about
	done    chan struct{} // closed when it has ended
}

// start starts a process in a process group of its own. It and its descendants are ended with the test.
func start(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	dir := tempDir(t)
	p := &process{t: t, name: name, cmd: cmd, out: filepath.Join(dir, "out"), err: filepath.Join(dir, "err"), done: make(chan struct{}), started: time.Now()}
	for path, to := range map[string]func(*os.File){
		p.out: func(f *os.File) { cmd.Stdout = f }, p.err: func(f *os.File) { cmd.Stderr = f },
	} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		to(f)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	failed := make(chan error)
	forks <- func() { failed <- cmd.Start() }
	if err := <-failed; err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(10 * time.Second)
		for line := range strings.Lines(p.stderr()) {
			if p.expects != "" && strings.Contains(line, p.expects) {
				continue
			}
			if strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
				t.Errorf("%s: %s", name, line)
			} else if strings.Contains(line, "level=WARN") {
				t.Logf("%s: %s", name, line)
			}
		}
		if t.Failed() {
			t.Logf("--- %s (%s)\nstdout: %s\nstderr: %s", name, cmd.ProcessState, tail(p.stdout()), tail(p.stderr()))
		}
	})
	return p
}

// tail answers the end of a text.
func tail(s string) string {
	if len(s) > 1500 {
		return "…" + s[len(s)-1500:]
	}
	return s
}

func (p *process) stdout() string { return readText(p.out) }
func (p *process) stderr() string { return readText(p.err) }

func readText(path string) string {
	b, _ := os.ReadFile(path) // what is gone has said nothing
	return string(b)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: signal %v: %v", p.name, s, err)
	}
}

// wait waits for the end and answers the exit code, -1 after a signal.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended after %s", p.name, limit)
		return 0
	}
}

// stop ends it, with SIGTERM and if that is of no use with SIGKILL for it and its descendants.
func (p *process) stop(limit time.Duration) {
	if p.ended() {
		return
	}
	all := descendants(p.pid())
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may end at this moment
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Errorf("%s did not end within %s of SIGTERM", p.name, limit)
		kill(append(all, p.pid()))
		<-p.done
	}
}

// killAll ends it and all its descendants (supervisor, proxy, program) with SIGKILL at once.
func (p *process) killAll() {
	kill(append([]int{p.pid()}, descendants(p.pid())...))
	<-p.done
}

func kill(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
}

// descendants answers the processes that pid has started, and those that they have.
func descendants(pid int) []int {
	children := map[int][]int{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p.pid)
	}
	var all []int
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

// processInfo is one line of the process table.
type processInfo struct {
	pid, parent int
	command     string // arguments separated by blanks
}

func processes() []processInfo {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	var all []processInfo
	for _, dir := range dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		i := bytes.LastIndexByte(stat, ')')
		if err != nil || i < 0 {
			continue
		}
		fields := strings.Fields(string(stat[i+1:]))
		pid, err1 := strconv.Atoi(filepath.Base(dir))
		parent, err2 := strconv.Atoi(fields[1])
		if err := errors.Join(err1, err2); err != nil || fields[0] == "Z" {
			continue
		}
		command := strings.ReplaceAll(readText(filepath.Join(dir, "cmdline")), "\x00", " ")
		all = append(all, processInfo{pid: pid, parent: parent, command: strings.TrimSpace(command)})
	}
	return all
}

// proxyOf answers the process id of the proxy beside a workload, 0 if there is none at the moment.
func (p *process) proxyOf() int {
	for _, q := range processes() {
		if q.parent == p.pid() && strings.HasPrefix(q.command, "tulle proxy") {
			return q.pid
		}
	}
	return 0
}

// programOf answers the process id of the program of a workload.
func (p *process) programOf(name string) int {
	for _, q := range processes() {
		if q.parent == p.pid() && !strings.HasPrefix(q.command, "tulle ") && strings.Contains(q.command, name) {
			return q.pid
		}
	}
	return 0
}

// eventually waits for a condition. It answers what the condition said last when it did not come true.
func eventually(t testing.TB, limit time.Duration, what string, condition func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond) // poll
	}
}

// always watches that a condition holds for a while.
func always(t testing.TB, limit time.Duration, what string, condition func() error) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if err := condition(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond) // poll
	}
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, tail(r.stdout), tail(r.stderr))
}
