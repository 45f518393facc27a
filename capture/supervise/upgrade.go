package supervise

import (
	"fmt"
	"os"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// upgrade is where the replacement of the proxy by one of another binary stands. The next proxy is started with the same
// sockets beside the present one. When it is ready it is the present one, and the one before retires: it accepts nothing
// more, and ends when what is open has ended. Until then nothing has happened that killing the next one does not undo.
type upgrade struct {
	order   *order
	next    *child // not ready yet
	retired *child // draining
	late    <-chan time.Time
	began   time.Time // of the draining
	old     Proxy
	open    int      // connections that the retired one cut
	exe     *os.File // what Config.Executable names since the last upgrade
}

// obey begins an upgrade.
func (s *supervisor) obey(o *order) {
	switch {
	case s.withdrawing:
		o.refuse("the workload is being ended")
		return
	case s.up.next != nil:
		o.refuse("another upgrade is under way")
		return
	case s.up.retired != nil:
		o.refuse(fmt.Sprintf("process %d still serves what was open at the last upgrade; try again when it has ended", s.up.retired.process.Pid))
		return
	case s.proxy == nil || !s.ready:
		o.refuse("its proxy is being started right now; try again in a moment")
		return
	}
	s.Bootstrap.Starts++
	s.Bootstrap.Withdrawn = false
	c, err := s.fork(path(o.exe))
	if err != nil {
		o.refuse(err.Error())
		return
	}
	s.Log.Info("upgrading the proxy", "process", s.proxy.process.Pid, "by", c.process.Pid)
	s.up.order, s.up.next = o, c
	s.up.late = time.After(bounded(o.Ready, readyTimeout, maxReady))
	s.hand(c, true)
}

// path names an open file in a way that holds between fork and exec.
func path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// bounded reads milliseconds; 0 is usual.
func bounded(ms int64, usual, most time.Duration) time.Duration {
	if ms <= 0 {
		return usual
	}
	return min(time.Duration(min(ms, most.Milliseconds()))*time.Millisecond, most)
}

// nextSaid hears the proxy that is to take over.
func (s *supervisor) nextSaid(e event) {
	switch {
	case e.ended:
		s.giveUp(fmt.Sprintf("the new proxy ended before it was ready (%s): see what the workload's supervisor has written", e.state))
	case e.message.Event == bootstrap.EventFailed:
		s.giveUp(e.message.Error)
	case e.message.Event == bootstrap.EventIdentity:
		s.Bootstrap.Identity = e.message.Identity
	case e.message.Event == bootstrap.EventSecurity:
		s.Bootstrap.Security = e.message.Security
	case e.message.Event == bootstrap.EventReady:
		s.takeOver(e.message.Version)
	}
}

// giveUp ends the next proxy, if there is one. It is killed while its link stands, for the end of the link would tell
// it to withdraw the workload.
func (s *supervisor) giveUp(why string) {
	if s.up.next == nil {
		return
	}
	s.up.next.process.Kill()
	s.Log.Warn("the proxy was not upgraded", "error", why)
	s.up.order.refuse(why)
	s.up.order, s.up.next, s.up.late = nil, nil, nil
	if s.proxy == nil { // it crashed meanwhile
		s.later()
	}
}

// takeOver makes the next proxy the present one and retires the one before.
func (s *supervisor) takeOver(version string) {
	o, old := s.up.order, s.proxy
	s.proxy, s.ready, s.pause = s.up.next, true, 0
	s.proxy.version = version
	s.up.next, s.up.late = nil, nil
	if s.up.exe != nil {
		s.up.exe.Close()
	}
	s.up.exe, o.exe = o.exe, nil
	s.Executable = path(s.up.exe)
	drain := bounded(o.Drain, goodbyeTimeout, maxDrain)
	s.up.began, s.up.open, s.up.old = time.Now(), 0, Proxy{}
	if old != nil {
		s.up.old = Proxy{PID: old.process.Pid, Version: old.version}
		s.tellTo(old, bootstrap.Message{Cmd: bootstrap.CmdRetire, Within: drain.Milliseconds()})
		s.up.retired = old
		s.up.late = time.After(drain + goodbyeTimeout)
	}
	s.Log.Info("the proxy is upgraded", "process", s.proxy.process.Pid, "version", version)
	o.tell(Progress{Old: s.up.old, New: s.present()})
	if old == nil { // it crashed meanwhile
		s.drained()
	}
}

func (s *supervisor) present() Proxy {
	if s.proxy == nil {
		return Proxy{}
	}
	return Proxy{PID: s.proxy.process.Pid, Version: s.proxy.version}
}

// retiredSaid hears the proxy that drains.
func (s *supervisor) retiredSaid(e event) {
	if e.message.Event == bootstrap.EventRetired {
		s.up.open = e.message.Open
	}
	if e.ended {
		s.drained()
	}
}

// drained tells the end of an upgrade.
func (s *supervisor) drained() {
	took := time.Since(s.up.began)
	s.Log.Info("the proxy before has ended", "process", s.up.old.PID, "after", took.Round(time.Millisecond), "cut", s.up.open)
	s.up.order.tell(Progress{Old: s.up.old, New: s.present(), Drained: true, Took: took.Milliseconds(), Open: s.up.open})
	s.up.order.end()
	s.up.order, s.up.retired, s.up.late = nil, nil, nil
}

// broken answers the order of an upgrade whose retired proxy outlived everybody, and is about to be killed.
func (s *supervisor) broken() {
	if s.up.order != nil {
		s.up.order.refuse(fmt.Sprintf("the program has ended, and process %d, which still drained, was killed", s.up.old.PID))
		s.up.order = nil
	}
}

// upgradeLate: the next proxy was not ready in time, or the one before did not end in time.
func (s *supervisor) upgradeLate() {
	s.up.late = nil
	switch {
	case s.up.next != nil:
		s.giveUp(fmt.Sprintf("the new proxy was not ready within %s; the one before carries on", bounded(s.up.order.Ready, readyTimeout, maxReady)))
	case s.up.retired != nil:
		s.Log.Warn("the proxy before did not end in time", "process", s.up.old.PID)
		s.up.retired.process.Kill()
	}
}
