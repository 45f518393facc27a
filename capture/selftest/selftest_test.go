package selftest_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/selftest"
)

// TestMonitor: one failure is chance, three in a row are an alarm, and one success ends it.
func TestMonitor(t *testing.T) {
	var m selftest.Monitor
	now := time.Duration(0)
	note := func(failed bool, want selftest.Change, least, most time.Duration) {
		t.Helper()
		now += time.Second
		if got := m.Note(failed, now); got != want {
			t.Errorf("at %s: change %d, want %d", now, got, want)
		}
		for _, r := range []float64{0, 0.5, 0.999} {
			if d := m.Next(r); d < least || d > most {
				t.Errorf("at %s: the next one after %s, want %s to %s", now, d, least, most)
			}
		}
	}
	calm := func(failed bool, want selftest.Change) { t.Helper(); note(failed, want, 8*time.Second, 12*time.Second) }
	soon := func(want selftest.Change) { t.Helper(); note(true, want, 200*time.Millisecond, 400*time.Millisecond) }
	alarm := func(want selftest.Change) { t.Helper(); note(true, want, 800*time.Millisecond, 1200*time.Millisecond) }
	calm(false, selftest.Same)
	soon(selftest.Same)
	soon(selftest.Same)
	calm(false, selftest.Same)
	soon(selftest.Same)
	since := now
	soon(selftest.Same)
	alarm(selftest.Raised)
	alarm(selftest.Same)
	if up, at := m.Alarm(); !up || at != since {
		t.Errorf("alarm %v since %s, want since %s", up, at, since)
	}
	calm(false, selftest.Ended)
	if up, _ := m.Alarm(); up {
		t.Error("the alarm goes on")
	}
}

// TestProof: an answer is good for its challenge, its place and its secret alone.
func TestProof(t *testing.T) {
	secret, challenge := selftest.NewSecret(), make([]byte, selftest.ChallengeSize)
	at := netip.MustParseAddrPort("169.254.7.1:40000")
	good := string(selftest.Prove(secret, challenge, at))
	if len(good) != selftest.ProofSize {
		t.Errorf("%d bytes", len(good))
	}
	if got := selftest.Prove(secret, challenge, netip.MustParseAddrPort("[::ffff:169.254.7.1]:40000")); string(got) != good {
		t.Error("an IPv4 address in IPv6 is another one")
	}
	other := append([]byte{1}, challenge[1:]...)
	for name, got := range map[string][]byte{
		"secret": selftest.Prove(selftest.NewSecret(), challenge, at), "challenge": selftest.Prove(secret, other, at),
		"place": selftest.Prove(secret, challenge, netip.AddrPortFrom(at.Addr(), 40001)),
	} {
		if string(got) == good {
			t.Errorf("another %s, the same answer", name)
		}
	}
	const name = "000102030405060708090a0b0c0d0e0f."
	if selftest.ProveName(secret, name+selftest.Domain) == "" {
		t.Error("no answer to a question of the test")
	}
	for _, s := range []string{"", "reviews.", selftest.Domain, "00." + selftest.Domain, "x" + name[1:] + selftest.Domain, name + "example."} {
		if got := selftest.ProveName(secret, s); got != "" {
			t.Errorf("%q is answered %q", s, got)
		}
	}
}

// TestOf: without all of its sockets there is no test.
func TestOf(t *testing.T) {
	if s := selftest.Of(&bootstrap.Bootstrap{Probe: selftest.NewSecret()}); s != nil {
		t.Error("a test without sockets")
	}
	all := []bootstrap.Socket{{Role: bootstrap.RoleProbeTCP, FD: 3}, {Role: bootstrap.RoleProbeUDP, FD: 4}, {Role: bootstrap.RoleLinks, FD: 5}, {Role: bootstrap.RoleRules, FD: 6}}
	if s := selftest.Of(&bootstrap.Bootstrap{Sockets: all}); s != nil {
		t.Error("a test without a secret")
	}
	if s := selftest.Of(&bootstrap.Bootstrap{Sockets: all, Probe: selftest.NewSecret()}); s == nil || s.TCP != [2]int{3, -1} {
		t.Errorf("%+v", s)
	}
}
