// Package supervise runs an unmodified program beside its proxy: it is the parent of both, and owns the sockets,
// the signals and the standard streams. It promises that the proxy is ready before the program starts and drains
// after it ends, that a proxy which ends is started again with the same sockets and identity while the program
// notices nothing, that the first SIGTERM reaches the program only after its callers know that it is leaving (at
// most 2 s), that other signals pass at once, and that neither program nor proxy outlives the supervisor. It never
// reads what passes through the sockets, and keeps the identity in memory alone. On a socket of its own it takes the
// order to replace the proxy by one of another binary (Upgrade): the program and its callers notice nothing of that
// either. One Run per process: signals belong to the process. Start reading at Run.
package supervise

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/capture/selftest"
)

// Bounds in time.
const (
	readyTimeout    = 20 * time.Second      // a proxy to say that it is ready, the first time
	withdrawTimeout = 2 * time.Second       // callers to know that the workload leaves
	goodbyeTimeout  = 3 * time.Second       // a proxy to drain (2 s) and exit
	firstPause      = 20 * time.Millisecond // before the second restart of a proxy in a row; the first has none
	lastPause       = time.Second           // the longest
	calm            = 10 * time.Second      // a proxy that has lived so long is not part of a row
	stopTimeout     = 5 * time.Second       // a program to stop after SIGTSTP
	lastWords       = time.Second           // to read what a proxy said before it ended
	firstStarts     = 3                     // proxies that may crash before the program is given up
)

// Config is all that Run needs.
type Config struct {
	Path       string   // of the program's executable
	Args       []string // its arguments, the first is its name
	Bootstrap  bootstrap.Bootstrap
	MeshHost   string   // host that the mesh inbound listener is bound to, "127.0.0.1" or "::" for all
	Hide       []string // folders that the program finds empty
	Endpoint   string   // of the SPIFFE Workload API that only the program sees, directly in a folder of Hide; "": none
	Executable string   // binary of shim and proxy; "" is /proc/self/exe
	ProxyArgs  []string // arguments of the proxy after its name; nil is bootstrap.ProxyCommand
	Inherited  []int    // descriptors that the program inherits and that this process closes once it has
	Stdin      *os.File
	Stdout     *os.File
	Stderr     *os.File // also of the proxy
	Log        *slog.Logger
}

// Run starts the proxy and the program and answers the program's exit code, 128 and the number of the signal that
// ended it, or 126 or 127 when it could not be executed. An error (one line for the user) means that it did not
// run. Run blocks until both have ended.
func Run(c Config) (code int, err error) {
	if c.Executable == "" {
		c.Executable = "/proc/self/exe"
	}
	s := &supervisor{Config: c, events: make(chan event, 16), signals: make(chan os.Signal, 32), threads: newThread(), done: make(chan struct{})}
	defer close(s.done)
	defer s.threads.end()
	watch(s.signals)
	defer signal.Stop(s.signals)
	defer s.close()
	if err := s.begin(); err != nil {
		return 1, err
	}
	if code, err := s.prepare(); code != 0 || err != nil {
		s.goodbye()
		return code, err
	}
	code = s.attend()
	s.goodbye()
	return code, nil
}

// supervisor is used by one goroutine, that of Run.
type supervisor struct {
	Config
	threads *thread
	signals chan os.Signal
	events  chan event
	done    chan struct{}      // closed when Run has ended: nobody reads events any more
	sockets []bootstrap.Socket // on the machine, ours

	ns      *netns.Namespace
	proxy   *child
	ready   bool // the present proxy has said so
	pause   time.Duration
	restart <-chan time.Time

	released    bool
	stopping    time.Time // SIGTSTP was seen
	withdrawing bool
	withdrawn   <-chan time.Time // the time is up

	orders *orders
	up     upgrade
}

// event is what the goroutines tell Run.
type event struct {
	from    *child // the proxy that it is about; nil: the program
	message bootstrap.Message
	ended   bool
	stopped bool // the program
	state   *os.ProcessState
	order   *order // somebody's, on our socket
}

func (s *supervisor) emit(e event) {
	select {
	case s.events <- e:
	case <-s.done:
	}
}

// explained turns a failure of the namespace into its line.
func explained(err error, userNamespace bool) error {
	var st *netns.StageError
	if errors.As(err, &st) {
		return errors.New(netns.Explain(st.Err, st.Stage, netns.ReadFacts(userNamespace)))
	}
	return err
}

// begin forks shim and proxy and brings their sockets together. Both processes start at the same time.
func (s *supervisor) begin() error {
	if err := s.openMachineSockets(); err != nil {
		return err
	}
	userNamespace := netns.NeedUserNamespace()
	var forward []uint16
	for _, f := range s.Bootstrap.Forward {
		forward = append(forward, f.Listen)
	}
	var err error
	s.threads.do(func() {
		s.ns, err = netns.Start(netns.Config{
			Path: s.Path, Args: s.Args, UserNamespace: userNamespace, Forward: forward, Hide: s.Hide, Endpoint: s.Endpoint,
			ResolvConf: netns.ResolvConf(s.Bootstrap.Namespace), Executable: s.Executable,
			Files: []*os.File{s.Stdin, s.Stdout, s.Stderr},
		})
	})
	if err != nil {
		return explained(err, userNamespace)
	}
	s.letGo()
	if s.proxy, err = s.fork(s.Executable); err != nil {
		return err
	}
	inside, warnings, err := s.ns.Sockets()
	if err != nil {
		return explained(err, userNamespace)
	}
	for _, w := range warnings {
		s.Log.Warn(w)
	}
	s.Bootstrap.Sockets = append(inside, s.sockets...)
	s.Bootstrap.Supervisor = os.Getpid()
	s.Bootstrap.Probe = selftest.NewSecret()
	go func() {
		state, _ := s.ns.Wait()
		s.emit(event{ended: true, state: state})
	}()
	s.hand(s.proxy, false)
	return s.takeOrders()
}

// letGo gives up what is the program's alone, so that whoever reads its output sees the end of it when the
// program closes it: inherited descriptors, and our copies of standard input and output.
func (s *supervisor) letGo() {
	for _, fd := range s.Inherited {
		syscall.Close(fd)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer null.Close()
	for _, f := range []*os.File{s.Stdin, s.Stdout} {
		if f == os.Stdin || f == os.Stdout {
			syscall.Dup3(int(null.Fd()), int(f.Fd()), 0)
		}
	}
}

// prepare waits until the proxy is ready and what the program waits for is there, and releases the program.
func (s *supervisor) prepare() (code int, err error) {
	waited := len(s.Bootstrap.WaitFor) == 0
	late := time.NewTimer(readyTimeout)
	defer late.Stop()
	for !s.ready || !waited {
		select {
		case sig := <-s.signals:
			if n, ok := sig.(syscall.Signal); ok && endsUnstarted(n) {
				return 128 + int(n), fmt.Errorf("%s before the program was started", n)
			}
		case <-late.C:
			if !s.ready {
				return 1, fmt.Errorf("the proxy was not ready within %s: see its messages above, and ask 'tulle status' about the control plane", readyTimeout)
			}
		case <-s.restart:
			if err := s.again(); err != nil {
				return 1, err
			}
		case e := <-s.events:
			switch {
			case e.stopped:
			case e.order != nil:
				e.order.refuse("the program has not been started yet")
			case e.from == nil:
				return 1, errors.New("the program's namespace ended before the program was started")
			case e.from != s.proxy:
			case e.ended && s.Bootstrap.Starts+1 >= firstStarts && !s.ready:
				s.proxy = nil
				return 1, fmt.Errorf("the proxy ended %d times before it was ready (%s): see its messages above", firstStarts, e.state)
			case e.ended:
				s.crashed(e.state)
			case e.message.Event == bootstrap.EventIdentity:
				s.Bootstrap.Identity = e.message.Identity
			case e.message.Event == bootstrap.EventSecurity:
				s.Bootstrap.Security = e.message.Security
			case e.message.Event == bootstrap.EventFailed:
				return 1, errors.New(e.message.Error)
			case e.message.Event == bootstrap.EventReady:
				s.ready, s.proxy.version = true, e.message.Version
				if !waited {
					s.Log.Info("waiting for services", "services", s.Bootstrap.WaitFor)
					s.tell(bootstrap.Message{Cmd: bootstrap.CmdWait, Services: s.Bootstrap.WaitFor})
				}
			case e.message.Event == bootstrap.EventWaited:
				if e.message.Error != "" {
					return 1, errors.New(e.message.Error)
				}
				waited = true
			}
		}
	}
	return s.release()
}

func (s *supervisor) release() (code int, err error) {
	if err := s.ns.Release(); err != nil {
		var ee *netns.ExecError
		if errors.As(err, &ee) {
			return ee.Code(), ee
		}
		return 1, explained(err, netns.NeedUserNamespace())
	}
	s.released = true
	debug.FreeOSMemory() // what starting took; from now on almost nothing is needed
	go s.watchStops()
	s.Bootstrap.Program = s.ns.Process.Pid
	s.tell(bootstrap.Message{Cmd: bootstrap.CmdStarted, PID: s.Bootstrap.Program})
	return 0, nil
}

// attend lasts as long as the program.
func (s *supervisor) attend() (code int) {
	for {
		select {
		case sig := <-s.signals:
			s.signal(sig)
		case <-s.withdrawn:
			s.terminate()
		case <-s.up.late:
			s.upgradeLate()
		case <-s.restart:
			if err := s.again(); err != nil {
				s.Log.Error("cannot start the proxy again", "error", err)
				s.later()
			}
		case e := <-s.events:
			switch {
			case e.stopped:
				s.stop()
			case e.order != nil:
				s.obey(e.order)
			case e.from == nil:
				return exitCode(e.state)
			case e.from == s.up.next:
				s.nextSaid(e)
			case e.from == s.up.retired:
				s.retiredSaid(e)
			case e.from != s.proxy:
			case e.ended:
				s.crashed(e.state)
				if s.withdrawing {
					s.terminate() // nobody is left to wait for
				}
			case e.message.Event == bootstrap.EventReady:
				s.ready, s.proxy.version = true, e.message.Version
			case e.message.Event == bootstrap.EventAnnounced:
				s.Bootstrap.Announced = true
			case e.message.Event == bootstrap.EventIdentity:
				s.Bootstrap.Identity = e.message.Identity
			case e.message.Event == bootstrap.EventSecurity:
				s.Bootstrap.Security = e.message.Security
			case e.message.Event == bootstrap.EventWithdrawn:
				s.terminate()
			case e.message.Event == bootstrap.EventFailed:
				s.Log.Error("proxy", "error", e.message.Error)
			}
		}
	}
}

// goodbye lets the proxy withdraw, drain and exit, or ends it in the end.
func (s *supervisor) goodbye() {
	if s.ns != nil && !s.released {
		s.ns.Process.Kill()
	}
	s.giveUp("the program has ended")
	for _, c := range []*child{s.up.retired, s.proxy} {
		if c != nil {
			s.tellTo(c, bootstrap.Message{Cmd: bootstrap.CmdGoodbye})
		}
	}
	late := time.NewTimer(goodbyeTimeout)
	defer late.Stop()
	for s.proxy != nil || s.up.retired != nil {
		select {
		case e := <-s.events:
			switch {
			case e.order != nil:
				e.order.refuse("the program has ended")
			case e.from != nil && e.from == s.up.retired:
				s.retiredSaid(e)
			case e.from != nil && e.from == s.proxy && e.ended:
				s.proxy = nil
			}
		case sig := <-s.signals:
			if n, ok := sig.(syscall.Signal); ok && endsUnstarted(n) {
				return // close kills it
			}
		case <-late.C:
			s.Log.Warn("the proxy did not end in time", "after", goodbyeTimeout)
			s.broken()
			return
		}
	}
}

// close ends what is left and gives the sockets back.
func (s *supervisor) close() {
	s.orders.close()
	for _, c := range []*child{s.proxy, s.up.next, s.up.retired} {
		if c != nil {
			c.process.Kill()
			c.link.Close()
		}
	}
	if s.ns != nil {
		if !s.released {
			s.ns.Process.Kill()
		}
		s.ns.Close()
	}
	for _, so := range s.sockets {
		syscall.Close(so.FD)
	}
	if s.Bootstrap.Admin != "" {
		os.Remove(s.Bootstrap.Admin)
	}
}

func exitCode(st *os.ProcessState) int {
	if st == nil {
		return 1
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}
