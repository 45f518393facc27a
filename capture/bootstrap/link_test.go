package bootstrap_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

func pair(t *testing.T) (a, b *bootstrap.Link) {
	t.Helper()
	a, f, err := bootstrap.Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err = bootstrap.NewLink(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestLinkCarriesFilesWithTheirMessage sends a message with files between two without, and one that is larger than
// the socket's buffer.
func TestLinkCarriesFilesWithTheirMessage(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("x", 600<<10)
	go func() {
		a.Send(bootstrap.Message{Cmd: bootstrap.CmdWait, Services: []string{"a"}})
		a.SendFiles(bootstrap.Message{Error: long}, []int{int(w.Fd())})
		a.Send(bootstrap.Message{Event: bootstrap.EventReady})
		w.Close()
		a.Close()
	}()
	if m, err := b.Next(); err != nil || m.Cmd != bootstrap.CmdWait || !reflect.DeepEqual(m.Services, []string{"a"}) {
		t.Fatal(m, err)
	}
	var m bootstrap.Message
	var fds []int
	if err := b.ReceiveFiles(&m, func(got []int) error { fds = got; return nil }); err != nil || len(fds) != 1 || m.Error != long {
		t.Fatal(err, fds, len(m.Error))
	}
	if flags, _ := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("a received descriptor is inherited by children")
	}
	unix.Write(fds[0], []byte("through"))
	unix.Close(fds[0])
	if m, err := b.Next(); err != nil || m.Event != bootstrap.EventReady {
		t.Fatal(m, err)
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if p, err := io.ReadAll(r); string(p) != "through" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}

// TestLinkFilesOfTheRightMessage: messages that are read together each get their own descriptors.
func TestLinkFilesOfTheRightMessage(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	send := func(fds []int) { // all is sent before anything is read
		if err := a.SendFiles(bootstrap.Message{Event: bootstrap.EventReady}, fds); err != nil {
			t.Fatal(err)
		}
	}
	send(nil)
	send(nil)
	send([]int{int(w.Fd())})
	send(nil)
	send([]int{int(w.Fd()), int(w.Fd())})
	for i, want := range []int{0, 0, 1, 0, 2} {
		var m bootstrap.Message
		err := b.ReceiveFiles(&m, func(got []int) error {
			if len(got) != want {
				t.Errorf("message %d has %d descriptors, want %d", i, len(got), want)
			}
			for _, fd := range got {
				unix.Close(fd)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinkManyWriters(t *testing.T) {
	a, b := pair(t)
	const writers, each = 8, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				a.Send(bootstrap.Message{Event: bootstrap.EventFailed, Error: strings.Repeat("e", 500)})
			}
		})
	}
	for range writers * each {
		if m, err := b.Next(); err != nil || len(m.Error) != 500 {
			t.Fatal(err, len(m.Error))
		}
	}
	wg.Wait()
}

func TestLinkRefusesGarbage(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := bootstrap.NewLink(os.NewFile(uintptr(fds[0]), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		unix.Write(fds[1], []byte("{no\n"))
		unix.Write(fds[1], []byte(strings.Repeat("a", 2<<20)))
		unix.Close(fds[1])
	}()
	if _, err := l.Next(); err == nil {
		t.Error("garbage was taken")
	}
	if _, err := l.Next(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless line: %v", err)
	}
}

func TestFindAndExclude(t *testing.T) {
	b := bootstrap.Bootstrap{Sockets: []bootstrap.Socket{
		{Role: bootstrap.RoleOutbound, FD: 1}, {Role: bootstrap.RoleOutbound, V6: true, FD: 2},
		{Role: bootstrap.RoleMesh, V6: true, FD: 3}, {Role: bootstrap.RoleForward, Index: 1, V6: true, FD: 4},
	}}
	for _, c := range []struct {
		role  bootstrap.Role
		v6    bool
		index int
		fd    int
	}{{bootstrap.RoleOutbound, false, 0, 1}, {bootstrap.RoleOutbound, true, 0, 2}, {bootstrap.RoleMesh, false, 0, 3}, {bootstrap.RoleForward, true, 1, 4}, {bootstrap.RoleForward, false, 1, 0}} {
		if s, ok := b.Find(c.role, c.v6, c.index); s.FD != c.fd || ok != (c.fd != 0) {
			t.Errorf("%+v: %+v, %v", c, s, ok)
		}
	}
	dst := netip.MustParseAddrPort("10.1.2.3:5432")
	mapped := netip.MustParseAddrPort("[::ffff:10.1.2.3]:1")
	net := bootstrap.Exclude{Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	port := bootstrap.Exclude{Port: 5432}
	if !net.Matches(dst) || !net.Matches(mapped) || !port.Matches(dst) || port.Matches(mapped) || (bootstrap.Exclude{}).Matches(dst) {
		t.Error("exclude")
	}
}
