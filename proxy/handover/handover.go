// Package handover lets a new proxy take over from a running one on the same machine without losing a connection.
// The old one serves a unix socket; the new one asks there and is given the listeners as the same open file
// descriptions, so that connections in their queues are lost by nobody, and what session tickets are made from. It
// promises that the old one goes on as if nothing was until the new one has said that it is ready, that there is one
// successor at a time, that only this user (or root) in the same namespaces is spoken to, and that everything that
// is waited for has a bound. It opens no listener, accepts nothing and ends no process: that is the caller's.
//
// The order of things (docs/design/restart.md):
//
//	new                               old
//	Take: connect, "take"       →     Config.Offer
//	open the listeners that     ←     "offer" with descriptors
//	were not handed; accept
//	Taken.Ready: "ready"        →     Config.Yield: stop accepting what was taken; what nobody took: see Queued
//	serve the path itself       ←     "yielded"; then drain and end
//
// Server and Taken are safe for concurrent use. Start reading at Serve, then Take.
package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/internal/peer"
)

// Bounds.
const (
	maxListeners = 1000                  // handed over at once
	perMessage   = 200                   // descriptors in one message; the kernel takes 253
	answerWait   = 5 * time.Second       // for one message of a peer that has nothing to do but to write it
	yieldWait    = time.Minute           // for the old proxy to stop accepting, once the new one is ready
	DefaultReady = time.Minute           // for the successor to become ready
	again        = 20 * time.Millisecond // between two questions to a proxy that is about to end
	maxAsking    = 16                    // connections to the socket at once
)

// protocol is the version of the messages. A peer with another one is refused; fields may be added without a new one.
const protocol = 1

// What a message says.
const (
	kindTake    = "take"    // new: give me what you have
	kindOffer   = "offer"   // old: some of the listeners, with their descriptors; the last has More unset
	kindRefused = "refused" // old: Error says why
	kindReady   = "ready"   // new: I accept from Took
	kindYielded = "yielded" // old: I accept no more
)

// message is one line on the socket.
type message struct {
	Protocol  int      `json:"protocol"`
	Kind      string   `json:"kind"`
	Version   string   `json:"version,omitempty"` // of the program, for the log
	PID       int      `json:"pid,omitempty"`
	Listeners []string `json:"listeners,omitempty"` // addresses, in the order of the descriptors
	More      bool     `json:"more,omitempty"`
	Tickets   []byte   `json:"tickets,omitempty"` // secret
	Took      []string `json:"took,omitempty"`
	Error     string   `json:"error,omitempty"`
	Again     bool     `json:"again,omitempty"` // of a refusal: it is over soon
}

// refusal is what a peer said that wants no hand-over.
type refusal struct {
	why   string
	again bool
}

func (r *refusal) Error() string { return r.why }

// ErrNobody is the answer of Take where no proxy is to take over from.
var ErrNobody = errors.New("no proxy to take over from")

// errLink marks what went wrong on the socket itself.
func errLink(doing string, err error) error { return fmt.Errorf("hand-over: %s: %w", doing, err) }

// send writes one message within answerWait.
func send(l *bootstrap.Link, m message, fds []int) error {
	m.Protocol = protocol
	if err := l.SetDeadline(time.Now().Add(answerWait)); err != nil {
		return err
	}
	return l.SendFiles(m, fds)
}

// receive reads one message of a kind until the deadline. What a peer that refuses says is the error.
func receive(l *bootstrap.Link, kind string, until time.Time, take func(fds []int) error) (m message, err error) {
	if err := l.SetDeadline(until); err != nil {
		return m, err
	}
	if err := l.ReceiveFiles(&m, take); err != nil {
		return m, err
	}
	switch {
	case m.Kind == kindRefused:
		return m, &refusal{m.Error, m.Again}
	case m.Protocol != protocol:
		return m, fmt.Errorf("the peer speaks version %d of the hand-over, this program %d; stop the old proxy and start the new one", m.Protocol, protocol)
	case m.Kind != kind:
		return m, fmt.Errorf("%q where %q was expected", m.Kind, kind)
	}
	return m, nil
}

// trusted makes a link of c if this user or root is at its other end, in our namespaces.
func trusted(c *net.UnixConn) (*bootstrap.Link, error) {
	if _, err := peer.Trusted(c); err != nil {
		c.Close()
		return nil, err
	}
	return bootstrap.Over(c), nil
}

// listenUnix makes the socket at path, 0600 from the first moment on, in place of whatever is there.
func listenUnix(path string) (*net.UnixListener, error) {
	if len(path) > 100 {
		return nil, fmt.Errorf("%s is longer than the 100 bytes that this socket's path may have", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".h") // 0700; renamed from there when it is complete
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "s")
	if len(fresh) > 107 {
		return nil, fmt.Errorf("the folder of %s has too long a name for a socket in it", path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fresh})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// place tells one socket file from another at the same path.
type place struct{ dev, inode uint64 }

func placeOf(path string) place {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return place{}
	}
	return place{uint64(st.Dev), st.Ino}
}

// Queued reports whether a listener has connections that nobody has accepted. The old proxy closes a listener that
// nobody took only when it has none; what comes between the question and the close is reset, as it would be after it.
func Queued(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLIN != 0
}
