package supervise_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/testenv"
)

// counterMain is a program that says each signal as it comes.
func counterMain() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, unix.SIGINT, unix.SIGUSR1)
	fmt.Println("up")
	for s := range c {
		fmt.Println("got", s)
		if s == unix.SIGUSR1 {
			os.Exit(0)
		}
	}
}

// terminal is a supervisor whose controlling terminal is ours.
type terminal struct {
	t    *testing.T
	ptmx *os.File
	cmd  *exec.Cmd
	text chan string
	seen strings.Builder
}

func startTerminal(t *testing.T, uid int, args ...string) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	check(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	defer tty.Close()
	check(t, tty.Chown(uid, uid))
	dir, err := os.MkdirTemp("/tmp", "tulle-tty-")
	check(t, err)
	check(t, os.Chown(dir, uid, uid))
	arg, err := json.Marshal(setup{Args: args, Dir: dir})
	check(t, err)
	x := &terminal{t: t, ptmx: ptmx, text: make(chan string)}
	x.cmd = exec.Command("/proc/self/exe", "lab-supervisor", string(arg))
	x.cmd.Dir = "/"
	x.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=> "}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if uid != 0 {
		x.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	check(t, x.cmd.Start())
	go func() {
		defer close(x.text)
		r := bufio.NewReader(ptmx)
		p := make([]byte, 4096)
		for {
			n, err := r.Read(p)
			if err != nil {
				return
			}
			x.text <- string(p[:n])
		}
	}()
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		go func() {
			for range x.text {
			}
		}()
		x.cmd.Wait()
		ptmx.Close()
		os.RemoveAll(dir)
	})
	return x
}

// expect reads until the terminal has shown s.
func (x *terminal) expect(s string) {
	x.t.Helper()
	late := time.After(patience)
	for !strings.Contains(x.seen.String(), s) {
		select {
		case more, ok := <-x.text:
			if !ok {
				x.t.Fatalf("the terminal ended without %q: %q", s, x.seen.String())
			}
			x.seen.WriteString(more)
		case <-late:
			x.t.Fatalf("no %q on the terminal: %q", s, x.seen.String())
		}
	}
}

func TestCtrlCReachesTheProgramOnce(t *testing.T) {
	testenv.NeedRoot(t)
	for _, uid := range []int{0, nobody} {
		x := startTerminal(t, uid, "/proc/self/exe", "lab-counter")
		x.expect("up")
		x.ptmx.WriteString("\x03")
		x.expect("got interrupt")
		check(t, x.cmd.Process.Signal(unix.SIGUSR1))
		x.expect("got user defined signal 1")
		if n := strings.Count(x.seen.String(), "got interrupt"); n != 1 {
			t.Errorf("uid %d: %d interrupts for one Ctrl-C: %q", uid, n, x.seen.String())
		}
	}
}

func TestInteractiveShell(t *testing.T) {
	testenv.NeedRoot(t)
	for _, uid := range []int{0, nobody} {
		x := startTerminal(t, uid, "sh", "-i")
		x.expect("> ")
		x.ptmx.WriteString("sleep 60\n")
		x.expect("sleep 60\r\n")
		sleeping := fmt.Sprintf("/proc/%d/task", x.cmd.Process.Pid)
		until(t, "sleep in the foreground", func() bool {
			group, err := unix.IoctlGetInt(int(x.ptmx.Fd()), unix.TIOCGPGRP)
			return err == nil && group != x.cmd.Process.Pid && dirExists(sleeping) && name(group) == "sleep"
		})
		x.ptmx.WriteString("\x03")
		x.ptmx.WriteString("echo st''ill here\n")
		x.expect("still here")
		x.ptmx.WriteString("exit 9\n")
		x.cmd.Wait()
		if c := x.cmd.ProcessState.ExitCode(); c != 9 || strings.Contains(x.seen.String(), "job control") {
			t.Errorf("uid %d: exit code %d: %q", uid, c, x.seen.String())
		}
	}
}

func dirExists(path string) bool { _, err := os.Stat(path); return err == nil }

func name(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
