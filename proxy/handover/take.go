package handover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// Taken is what a new proxy was given by the old one, which goes on until Ready.
type Taken struct {
	Version string // of the old program
	PID     int
	Tickets []byte // for ParseTickets; nil: none

	mu   sync.Mutex
	link *bootstrap.Link
	left map[string]int // address → descriptor, not found yet
	took []string
}

// Take asks the proxy that serves path for what it has. One that is about to end is asked again, for some seconds.
// ErrNobody: nobody is there (no file, or one that a crash left behind), so the caller opens its own listeners. Any
// other error means that somebody is there, and that starting beside it would fail on its addresses. version is that
// of the calling program.
func Take(path, version string) (*Taken, error) {
	for until := time.Now().Add(answerWait); ; {
		t, err := take(path, version)
		no, refused := errors.AsType[*refusal](err)
		if !refused || !no.again || time.Now().After(until) {
			return t, err
		}
		time.Sleep(again)
	}
}

func take(path, version string) (*Taken, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, ErrNobody
	case err != nil:
		return nil, errLink("ask at "+path, err)
	}
	link, err := trusted(c)
	if err != nil {
		return nil, errLink("who serves "+path, err)
	}
	t := &Taken{link: link, left: map[string]int{}}
	sent := send(link, message{Kind: kindTake, Version: version, PID: os.Getpid()}, nil)
	if err = t.receive(); err != nil {
		t.Close()
		if _, refused := errors.AsType[*refusal](err); !refused && sent != nil {
			err = sent // what it said before it hung up counts more
		}
		return nil, errLink("the proxy at "+path, err)
	}
	return t, nil
}

// receive reads the offer.
func (t *Taken) receive() error {
	until := time.Now().Add(answerWait)
	for first := true; ; first = false {
		var fds []int
		m, err := receive(t.link, kindOffer, until, func(got []int) error { fds = got; return nil })
		if err == nil && len(fds) != len(m.Listeners) {
			err = fmt.Errorf("%d listeners announced, %d received", len(m.Listeners), len(fds))
		}
		if err == nil && len(t.left)+len(fds) > maxListeners {
			err = fmt.Errorf("more than %d listeners", maxListeners)
		}
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return err
		}
		for i, a := range m.Listeners {
			if old, twice := t.left[a]; twice {
				unix.Close(old)
			}
			t.left[a] = fds[i]
		}
		if first {
			t.Version, t.PID, t.Tickets = m.Version, m.PID, m.Tickets
		}
		if !m.More {
			return nil
		}
	}
}

// Listener answers the descriptor of the listener that is bound to at; it is the caller's from now on, and Ready
// will say that it was taken. ok is false if the old proxy has none there, or it has been answered before: open it.
func (t *Taken) Listener(at netip.AddrPort) (fd int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd, ok = t.left[at.String()]
	if ok {
		delete(t.left, at.String())
		t.took = append(t.took, at.String())
	}
	return fd, ok
}

// Addresses answers those of the listeners that nobody has asked for yet, in no order.
func (t *Taken) Addresses() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for a := range t.left {
		out = append(out, a)
	}
	return out
}

// Ready says that the caller accepts on everything it has asked for, and returns when the old proxy accepts no more,
// also where that is because it has died. What nobody asked for is given back (closed here). After an error the old
// proxy serves still: the caller must not go on beside it, but drain what it has accepted and end.
func (t *Taken) Ready() error {
	t.mu.Lock()
	took := t.took
	t.drop()
	link := t.link
	t.mu.Unlock()
	if link == nil {
		return errLink("ready", errors.New("given up before"))
	}
	defer t.Close()
	sent := send(link, message{Kind: kindReady, Took: took}, nil)
	_, err := receive(link, kindYielded, time.Now().Add(yieldWait), nil) // also if it was not sent: it may have said why
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return nil // it has ended without a word: nobody else serves
	case sent != nil:
		err = sent
	}
	return errLink("the old proxy did not yield", err)
}

// Close gives up: the old proxy carries on. Descriptors that Listener has answered stay the caller's. Closing again,
// or after Ready, does nothing.
func (t *Taken) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	if t.link != nil {
		t.link.Close()
		t.link = nil
	}
}

// drop closes what nobody asked for. With mu held.
func (t *Taken) drop() {
	for a, fd := range t.left {
		unix.Close(fd)
		delete(t.left, a)
	}
}
