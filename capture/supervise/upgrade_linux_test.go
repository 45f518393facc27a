package supervise_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/supervise"
)

// upgrade asks for a new proxy of this same binary.
func (r *run) upgrade(ready, drain time.Duration, told func(supervise.Progress)) error {
	r.t.Helper()
	list, err := supervise.Workloads(r.dir)
	check(r.t, err)
	if len(list) != 1 || list[0].String() != "default/w-1" {
		r.t.Fatalf("workloads: %v", list)
	}
	exe, err := os.Open("/proc/self/exe")
	check(r.t, err)
	defer exe.Close()
	return supervise.Upgrade(list[0], exe, ready, drain, told)
}

// served answers the process id of the proxy that serves the program.
func (r *run) served() int {
	r.t.Helper()
	fmt.Fprintln(r.in, "198.18.0.5:80")
	pid := 0
	if _, err := fmt.Sscan(r.line(), &pid); err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// TestUpgrade: the next proxy takes over, the one before drains, again and again, and the program is served all the time.
func TestUpgrade(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		now := r.served()
		for round := range 3 {
			os.Remove(filepath.Join(r.dir, "drained"))
			var got []supervise.Progress
			err := r.upgrade(patience, time.Minute, func(p supervise.Progress) {
				got = append(got, p)
				if p.Drained {
					return
				}
				if p.Old.PID != now || p.New.PID == now || p.Old.Version != fmt.Sprintf("v%d", round) || p.New.Version != fmt.Sprintf("v%d", round+1) {
					t.Errorf("%+v", p)
				}
				until(t, "the new one alone serves", func() bool { return r.served() == p.New.PID })
				if again := r.upgrade(patience, time.Minute, nil); again == nil || !strings.Contains(again.Error(), "still serves") {
					t.Errorf("an upgrade while one drains: %v", again)
				}
				if st := state(p.Old.PID); st == "" || st == "Z" {
					t.Error("the old one does not drain")
				}
				r.touch("drained")
				now = p.New.PID
			})
			check(t, err)
			if len(got) != 2 || !got[1].Drained || got[1].Open != 0 {
				t.Errorf("%+v", got)
			}
		}
		// One that crashes afterwards is replaced by one of the new binary, which is announced at once.
		check(t, unix.Kill(now, unix.SIGKILL))
		until(t, "the next serves", func() bool { return r.served() != now })
		r.in.Close()
		if c := r.code(); c != 0 {
			t.Errorf("exit code %d", c)
		}
		for _, want := range []string{"overlap 1 announced true", "overlap 3 announced true", `identity 3 "of start 2"`, `identity 4 "of start 3"`} {
			if !strings.Contains(r.log(), want) {
				t.Errorf("no %s: %s", want, r.log())
			}
		}
		if list, err := supervise.Workloads(r.dir); err != nil || len(list) != 0 {
			t.Errorf("left: %v, %v", list, err)
		}
	})
}

// TestUpgradeThatFails: a next proxy that fails, crashes or hangs changes nothing, and is never told to say goodbye.
func TestUpgradeThatFails(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		now := r.served()
		for wish, want := range map[string]string{"fails": "the control plane is not reachable", "crashes": "ended before it was ready", "hangs": "not ready within 100ms"} {
			check(t, os.WriteFile(filepath.Join(r.dir, "next"), []byte(wish), 0o644))
			ready := patience
			if wish == "hangs" {
				ready = 100 * time.Millisecond
			}
			err := r.upgrade(ready, time.Minute, func(p supervise.Progress) { t.Errorf("%+v", p) })
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", wish, err)
			}
			if got := r.served(); got != now {
				t.Errorf("%s: %d serves, not %d", wish, got, now)
			}
		}
		if strings.Contains(r.log(), "has ended") {
			t.Error("a proxy that is given up saw the end of its link; it would have withdrawn the workload")
		}
		// What is no program at all is said as well.
		f, err := os.Open(filepath.Join(r.dir, "next"))
		check(t, err)
		defer f.Close()
		list, _ := supervise.Workloads(r.dir)
		if err := supervise.Upgrade(list[0], f, time.Second, time.Second, nil); err == nil || !strings.Contains(err.Error(), "cannot start the proxy") {
			t.Errorf("no program: %v", err)
		}
		r.in.Close()
		if c := r.code(); c != 0 {
			t.Errorf("exit code %d", c)
		}
	})
}

// TestUpgradeWhileTheOldOneCrashes: the next one serves when it is ready; if it is given up, another is started.
func TestUpgradeWhileTheOldOneCrashes(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		now := r.served()
		check(t, os.WriteFile(filepath.Join(r.dir, "next"), []byte("hangs"), 0o644))
		failed := make(chan error, 1)
		go func() { failed <- r.upgrade(300*time.Millisecond, time.Minute, nil) }()
		until(t, "the next has begun", func() bool { return strings.Contains(r.log(), "overlap 1") })
		check(t, unix.Kill(now, unix.SIGKILL))
		if err := <-failed; err == nil {
			t.Error("no error")
		}
		if got := r.served(); got == now {
			t.Error("the dead serve")
		}
	})
}

// TestRetiredThatStays is ended when its time is up, and what it cut is told.
func TestRetiredThatStays(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		now := r.served()
		var last supervise.Progress
		check(t, r.upgrade(patience, 10*time.Millisecond, func(p supervise.Progress) { last = p }))
		if !last.Drained || last.Open != 3 || !gone(now) {
			t.Errorf("%+v, %q", last, state(now))
		}
	})
}

// TestEndWhileUpgrading: the program's end ends all three proxies.
func TestEndWhileUpgrading(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		r.served() // before that nobody takes orders
		var p supervise.Progress
		ended := make(chan error, 1)
		took := make(chan bool)
		go func() {
			ended <- r.upgrade(patience, time.Minute, func(x supervise.Progress) {
				if !x.Drained {
					p = x
					close(took)
				}
			})
		}()
		select {
		case <-took:
		case err := <-ended:
			t.Fatalf("no proxy was replaced: %v", err)
		}
		r.in.Close()
		if c := r.code(); c != 0 {
			t.Errorf("exit code %d", c)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		until(t, "both proxies have ended", func() bool { return gone(p.Old.PID) && gone(p.New.PID) })
	})
}

// TestOrdersOfStrangers: nonsense is not obeyed, and nobody is kept waiting by it.
func TestOrdersOfStrangers(t *testing.T) {
	both(t, func(t *testing.T, begin func(setup) *run) {
		r := begin(setup{Args: []string{"/proc/self/exe", "lab-dialer"}})
		now := r.served()
		socket := bootstrap.SupervisorSocket(r.dir, "default", "w-1")
		if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		for text, want := range map[string]string{
			"nonsense\n": "", "{}\n": "does not know order", `{"protocol":1,"kind":"upgrade"}` + "\n": "", `{"protocol":9,"kind":"upgrade"}` + "\n": "",
		} {
			c, err := net.Dial("unix", socket)
			check(t, err)
			c.SetDeadline(time.Now().Add(patience))
			fmt.Fprint(c, text)
			b := make([]byte, 1000)
			n, _ := c.Read(b)
			if !strings.Contains(string(b[:n]), want) {
				t.Errorf("%q: %q", text, b[:n])
			}
			c.Close()
		}
		if got := r.served(); got != now {
			t.Errorf("%d serves, not %d", got, now)
		}
	})
}
