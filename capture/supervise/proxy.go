package supervise

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
)

// child is one proxy process.
type child struct {
	process *os.Process
	link    *bootstrap.Link
	since   time.Time
	seeds   int    // which pair of seeds it mints from
	version string // as it said when it was ready
}

// fork starts a proxy of the binary exe; it waits for its bootstrap, see hand. It has a process group of its own, so
// that what a terminal sends to the program's group does not reach it.
func (s *supervisor) fork(exe string) (*child, error) {
	link, other, err := bootstrap.Pair()
	if err != nil {
		return nil, err
	}
	defer other.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	defer null.Close()
	args := s.ProxyArgs
	if args == nil {
		args = bootstrap.ProxyCommand[:]
	}
	attr := &os.ProcAttr{
		Files: []*os.File{null, s.Stderr, s.Stderr, other},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}
	var p *os.Process
	s.threads.do(func() { p, err = os.StartProcess(exe, append([]string{"tulle"}, args...), attr) })
	if err != nil {
		link.Close()
		return nil, fmt.Errorf("cannot start the proxy: %w", err)
	}
	c := &child{process: p, link: link, since: time.Now(), seeds: s.freeSeeds()}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for {
			m, err := link.Next()
			if err != nil {
				return
			}
			s.emit(event{from: c, message: m})
		}
	}()
	go func() {
		state, _ := p.Wait()
		select { // what it said last counts
		case <-heard:
		case <-time.After(lastWords):
		}
		link.Close()
		<-heard
		s.emit(event{from: c, ended: true, state: state})
	}()
	return c, nil
}

// freeSeeds answers the pair that no proxy mints from.
func (s *supervisor) freeSeeds() int {
	used := map[int]bool{}
	for _, c := range []*child{s.proxy, s.up.next, s.up.retired} {
		if c != nil {
			used[c.seeds] = true
		}
	}
	for i := range netns.Seeds {
		if !used[i] {
			return i
		}
	}
	return 0 // not while there are two proxies at most
}

// hand gives a proxy its bootstrap and sockets. If it cannot be told, it is about to end, and Wait says so.
func (s *supervisor) hand(c *child, overlap bool) {
	b := s.Bootstrap
	b.Overlap = overlap
	b.Sockets = nil
	for _, so := range s.Bootstrap.Sockets {
		if so.Role == bootstrap.RoleSeed || so.Role == bootstrap.RoleSeedListener {
			if so.Index != c.seeds {
				continue
			}
			so.Index = 0
		}
		b.Sockets = append(b.Sockets, so)
	}
	if err := c.link.Start(&b); err != nil {
		s.Log.Debug("bootstrap", "error", err)
	}
}

// tell sends the present proxy a message; likewise. A proxy that is not there (between two of them) misses nothing: the
// bootstrap of the next says what has happened.
func (s *supervisor) tell(m bootstrap.Message) {
	if s.proxy != nil {
		s.tellTo(s.proxy, m)
	}
}

func (s *supervisor) tellTo(c *child, m bootstrap.Message) {
	if err := c.link.Send(m); err != nil {
		s.Log.Debug("message to the proxy", "error", err)
	}
}

// crashed plans the next proxy: at once, and then later and later.
func (s *supervisor) crashed(state *os.ProcessState) {
	if time.Since(s.proxy.since) > calm {
		s.pause = 0
	}
	s.proxy, s.ready = nil, false
	if s.up.next != nil {
		s.Log.Warn("the proxy ended while it was being replaced", "state", state)
		return // see giveUp
	}
	s.Log.Warn("the proxy ended and is started again", "state", state, "in", s.pause)
	s.later()
}

// later plans one restart and lengthens the next pause.
func (s *supervisor) later() {
	s.restart = time.After(s.pause)
	s.pause = min(max(firstPause, 2*s.pause), lastPause)
}

// again starts the next proxy with the same sockets.
func (s *supervisor) again() error {
	s.restart = nil
	s.Bootstrap.Starts++
	s.Bootstrap.Withdrawn = s.withdrawing
	c, err := s.fork(s.Executable)
	if err != nil {
		return err
	}
	s.proxy, s.ready = c, false
	s.hand(c, false)
	return nil
}

// thread is one OS thread that forks. The kernel tells children of their parent's death when the *thread* that
// forked them ends, so all forks happen on one that lives as long as the supervisor.
type thread struct{ jobs chan func() }

func newThread() *thread {
	t := &thread{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for f := range t.jobs {
			f()
		}
	}()
	return t
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.jobs <- func() { defer close(done); f() }
	<-done
}

func (t *thread) end() { close(t.jobs) }
