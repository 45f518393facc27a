package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds one line on the link, in bytes; maxFiles the descriptors that come with it (the kernel's SCM_MAX_FD).
const (
	maxLine  = 1 << 20
	maxFiles = 253
)

// Link is one end of the connection between a supervisor and its proxy. Send may be called from any goroutine,
// Next and Receive from one at a time.
type Link struct {
	conn *net.UnixConn
	send sync.Mutex
	rest []byte  // read, not yet given out
	fds  []batch // likewise, in order
}

// batch is the descriptors that came with the message that begins at an offset of Link.rest.
type batch struct {
	at  int
	fds []int
}

// NewLink takes over f, one end of a connected unix stream socket.
func NewLink(f *os.File) (*Link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("link: not a unix socket")
	}
	return Over(u), nil
}

// Over makes a link of a connected unix stream socket and takes it over.
func Over(c *net.UnixConn) *Link { return &Link{conn: c} }

// SetDeadline bounds every read and write from now on; the zero time: no bound.
func (l *Link) SetDeadline(t time.Time) error { return l.conn.SetDeadline(t) }

// Pair makes a link and the file that becomes its other end in another process.
func Pair() (*Link, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	other := os.NewFile(uintptr(fds[1]), "link")
	l, err := NewLink(os.NewFile(uintptr(fds[0]), "link"))
	if err != nil {
		other.Close()
		return nil, nil, err
	}
	return l, other, nil
}

// Open takes the link that the supervisor left at LinkFD and reads the bootstrap from it. It answers
// ErrNotSupervised where there is none. The caller owns the descriptors in b.Sockets and the link.
func Open() (b *Bootstrap, l *Link, err error) {
	if typ, err := unix.GetsockoptInt(LinkFD, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || typ != unix.AF_UNIX {
		return nil, nil, ErrNotSupervised
	}
	unix.CloseOnExec(LinkFD)
	l, err = NewLink(os.NewFile(LinkFD, "link"))
	if err != nil {
		return nil, nil, err
	}
	b = new(Bootstrap)
	if err := l.ReceiveFiles(b, func(fds []int) error { return b.take(fds) }); err != nil {
		l.Close()
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	return b, l, nil
}

func (b *Bootstrap) take(fds []int) error {
	if len(fds) != len(b.Sockets) {
		return fmt.Errorf("%d sockets announced, %d received", len(b.Sockets), len(fds))
	}
	for i := range fds {
		b.Sockets[i].FD = fds[i]
	}
	return nil
}

// Start sends the bootstrap and the descriptors of b.Sockets to the proxy.
func (l *Link) Start(b *Bootstrap) error {
	fds := make([]int, len(b.Sockets))
	for i, s := range b.Sockets {
		fds[i] = s.FD
	}
	return l.SendFiles(b, fds)
}

// Send writes one message.
func (l *Link) Send(m Message) error { return l.SendFiles(m, nil) }

// Next reads one message. It answers io.EOF after the other end has gone; the proxy then drains for at most 2 s and exits.
func (l *Link) Next() (m Message, err error) {
	err = l.ReceiveFiles(&m, nil)
	return m, err
}

// Close closes the link.
func (l *Link) Close() error { return l.conn.Close() }

// SendFiles writes v as one line of JSON, and the descriptors with its first byte.
func (l *Link) SendFiles(v any, fds []int) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(fds) > maxFiles || len(line) >= maxLine {
		return fmt.Errorf("link: %d sockets and %d bytes in one message, more than %d and %d", len(fds), len(line), maxFiles, maxLine)
	}
	line = append(line, '\n')
	l.send.Lock()
	defer l.send.Unlock()
	if len(fds) > 0 {
		n, _, err := l.conn.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		line = line[n:]
	}
	if len(line) > 0 {
		if _, err := l.conn.Write(line); err != nil {
			return fmt.Errorf("link: %w", err)
		}
	}
	return nil
}

// ReceiveFiles reads one line of JSON into v; take is given the descriptors that came with it (close-on-exec set).
// Descriptors that nobody takes are closed.
func (l *Link) ReceiveFiles(v any, take func(fds []int) error) error {
	for {
		if i := bytes.IndexByte(l.rest, '\n'); i >= 0 {
			line, fds := l.rest[:i], l.takeFiles(i+1)
			l.rest = l.rest[i+1:]
			err := json.Unmarshal(line, v)
			if err == nil && take != nil {
				err = take(fds)
			}
			if err != nil || take == nil {
				closeAll(fds)
			}
			return err
		}
		if len(l.rest) > maxLine {
			return fmt.Errorf("link: line longer than %d bytes", maxLine)
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
}

// takeFiles answers the descriptors of the first message, which has n bytes and is about to be taken out of rest.
func (l *Link) takeFiles(n int) (fds []int) {
	later := l.fds[:0]
	for _, b := range l.fds {
		if b.at < n {
			fds = append(fds, b.fds...)
		} else {
			later = append(later, batch{at: b.at - n, fds: b.fds})
		}
	}
	l.fds = later
	return fds
}

func (l *Link) fill() error {
	p := make([]byte, 16<<10)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := l.conn.ReadMsgUnix(p, oob)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	l.rest = append(l.rest, p[:n]...)
	// One read ends with the first piece that has descriptors, and may begin with messages before it: they belong to the
	// message that the read's last byte is part of.
	at := bytes.LastIndexByte(l.rest[:len(l.rest)-1], '\n') + 1
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		l.fds = append(l.fds, batch{at: at, fds: fds})
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
