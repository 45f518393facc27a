package supervise

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// passed are the signals that go to the program. Those that the kernel sends about a process's own doing (faults,
// pipes, children) are not among them.
var passed = []syscall.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM,
	unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR,
}

// The kernel's real-time signals that user programs may send (32 and 33 belong to the thread library).
const firstRealTime, lastRealTime = 34, 64

// watch subscribes to every signal that is passed on. One that was ignored when we started (nohup, a shell's
// background job) stays ignored, here and in the program.
func watch(to chan<- os.Signal) {
	all := slices.Clone(passed)
	for n := firstRealTime; n <= lastRealTime; n++ {
		all = append(all, syscall.Signal(n))
	}
	for _, sig := range all {
		if !signal.Ignored(sig) {
			signal.Notify(to, sig)
		}
	}
}

// endsUnstarted reports whether a signal ends a supervisor whose program does not run.
func endsUnstarted(n syscall.Signal) bool {
	return n == unix.SIGINT || n == unix.SIGTERM || n == unix.SIGHUP || n == unix.SIGQUIT
}

// signal passes one signal on.
func (s *supervisor) signal(sig os.Signal) {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return
	}
	switch n {
	case unix.SIGTERM:
		s.giveUp("the program is being ended")
		if !s.withdrawing && len(s.Bootstrap.Ports) > 0 && s.proxy != nil && s.ready {
			s.withdrawing = true
			s.tell(bootstrap.Message{Cmd: bootstrap.CmdWithdraw})
			s.withdrawn = time.After(withdrawTimeout)
			return
		}
		s.withdrawing, s.withdrawn = true, nil // a second one does not wait
	case unix.SIGINT, unix.SIGQUIT:
		if terminalGave() {
			return
		}
	case unix.SIGTSTP:
		if !terminalGave() {
			s.ns.Process.Signal(n)
		}
		s.stopping = time.Now()
		return
	}
	s.ns.Process.Signal(n)
}

// watchStops tells whenever the program stops, until it has ended.
func (s *supervisor) watchStops() {
	for {
		err := unix.Waitid(unix.P_PID, s.ns.Process.Pid, nil, unix.WSTOPPED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		s.emit(event{stopped: true})
	}
}

// stop follows the program into a stop that SIGTSTP asked for, so that our shell sees it. (A program that SIGSTOP has
// stopped is continued by whoever did that, who knows nothing of us.)
func (s *supervisor) stop() {
	if time.Since(s.stopping) < stopTimeout {
		s.stopping = time.Time{}
		unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
}

// terminate passes SIGTERM on once the workload is withdrawn.
func (s *supervisor) terminate() {
	if s.withdrawn == nil {
		return
	}
	s.withdrawn = nil
	s.ns.Process.Signal(unix.SIGTERM)
}

// terminalGave reports whether our process group is in the foreground of our terminal. Then a key such as Ctrl-C
// has sent its signal to the whole group, so the program already has it, and must not get it twice.
func terminalGave() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
