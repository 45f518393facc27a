package loop

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Splicer is implemented by connections that can hand bytes on inside the kernel. Epoll's are Splicers; the simulator's
// need not be: whoever asks goes on to copy where the answer is no.
type Splicer interface {
	// SpliceTo has the kernel carry what arrives from now on to dst (splice(2)) where that pays, instead of giving it to
	// Data. The connection's handler must be a Mover. It still gets Data, as before, when little arrives or all pipes are
	// in use, and EOF once everything has been carried. Nobody else may write to dst. It ends with SetHandler, or when
	// either connection does. It reports false, and nothing changes, where it cannot be done. On the loop.
	SpliceTo(dst Conn) bool
}

// Mover is a Handler that is told how many bytes were carried past it.
type Mover interface {
	Handler
	// Moved: n bytes more have arrived and are on their way to dst; n is more than 0. The same rules as for Data.
	Moved(n int)
}

// Bounds of splicing.
const (
	pipeSize  = 256 << 10 // bytes in flight per direction; a kernel that gives less gives 64 KB
	maxPipes  = 256       // per loop; a direction has one only while it has bytes in it
	keepPipes = 16        // of them, kept when nobody needs them
	worthHot  = 32 << 10  // from how much at once on carrying pays
	worthCold = 4 << 10   // below how much it does not
)

// splicing is the direction from a connection to another.
type splicing struct {
	dst   *conn
	mover Mover
	pipe  pipe // has held bytes in it; none while held is 0
	held  int
	hot   bool // the last read was large
}

type pipe struct{ r, w, size int }

// SpliceTo implements Splicer.
func (c *conn) SpliceTo(to Conn) bool {
	dst, ok := to.(*conn)
	mover, told := c.h.(Mover)
	switch {
	case !ok || !told || dst == c || dst.e != c.e || c.splice != nil || dst.from != nil:
		return false
	case c.connecting || dst.connecting || c.stopped() || dst.stopped() || c.broken || dst.broken || dst.shut:
		return false
	}
	c.splice = &splicing{dst: dst, mover: mover, hot: true}
	dst.from = c
	return true
}

// unsplice goes back to copying. What is in the pipe is written to dst, or forgotten if that is gone.
func (c *conn) unsplice() {
	s := c.splice
	if s == nil {
		return
	}
	dst := s.dst
	c.splice, dst.from = nil, nil
	buf := c.e.pool.Get(ScratchSize)[:ScratchSize]
	for s.held > 0 && !dst.gone && !dst.broken {
		n, errno := readPipe(s.pipe.r, buf)
		if errno != 0 || n == 0 {
			break
		}
		s.held -= n
		dst.Write(buf[:n])
	}
	c.e.pool.Put(buf)
	if s.held > 0 {
		s.pipe.close(c.e)
	} else if s.pipe.size > 0 {
		c.e.putPipe(s.pipe)
	}
	s.held, s.pipe = 0, pipe{}
	if c.stalled {
		c.stalled = false
		c.wake()
	}
}

// carry moves what has arrived towards dst. It reports false when the bytes are to be read as usual, and sets stalled
// when dst has to send first what it has.
func (c *conn) carry() bool {
	s := c.splice
	switch {
	case s.held > 0 || s.hot && (s.dst.blocked || s.dst.Buffered() > 0):
		c.stalled = true // poured wakes us
		return true
	case s.dst.stopped() || s.dst.broken || s.dst.shut:
		c.unsplice()
		return false
	case !s.hot:
		return false
	}
	p, ok := c.e.takePipe()
	if !ok {
		return false
	}
	n, errno := c.e.splice(c.fd, p.w, p.size)
	if n > 0 {
		s.pipe, s.held, s.hot = p, n, n >= worthCold
		s.mover.Moved(n)
		if c.splice == s { // else it ended meanwhile
			c.pour()
		}
		return true
	}
	c.e.putPipe(p)
	switch errno {
	case 0:
		c.more, c.eof = false, true
		if c.broken {
			c.fail(c.err)
		}
	case unix.EAGAIN:
		c.more = false
		if c.broken {
			c.fail(c.err)
		}
	case unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM:
		c.unsplice()
		return false
	default:
		c.fail(errno)
	}
	return true
}

// pour moves what the pipe holds to dst, as far as its kernel takes it.
func (c *conn) pour() {
	s := c.splice
	for s.held > 0 {
		n, errno := c.e.splice(s.pipe.r, s.dst.fd, s.held)
		if n > 0 {
			s.held -= n
			continue
		}
		switch errno {
		case unix.EAGAIN:
			s.dst.blocked = true
		case unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM:
			c.unsplice()
		default:
			c.unspliceBroken()
			s.dst.sendFailed(errno)
		}
		return
	}
	c.e.putPipe(s.pipe)
	s.pipe = pipe{}
}

// unspliceBroken ends splicing to a connection that cannot send any more.
func (c *conn) unspliceBroken() {
	c.splice.dst.broken = true
	c.unsplice()
}

// poured goes on after dst has sent what was written to it: first what the pipe holds, then what has arrived. It reports
// whether nothing is left to send.
func (c *conn) poured() bool {
	src := c.from
	if src == nil {
		return true
	}
	if s := src.splice; s.held > 0 && !c.blocked {
		src.pour()
		if src.splice == s && s.held > 0 || len(c.out) > c.sent {
			return false
		}
	}
	if src.stalled {
		src.stalled = false
		src.wake()
	}
	return true
}

// takePipe answers an empty pipe, or false if there is none to be had.
func (e *Epoll) takePipe() (pipe, bool) {
	if n := len(e.pipes); n > 0 {
		p := e.pipes[n-1]
		e.pipes = e.pipes[:n-1]
		return p, true
	}
	if e.pipesMade >= maxPipes {
		return pipe{}, false
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, false
	}
	p := pipe{r: fds[0], w: fds[1], size: 64 << 10}
	if n, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err == nil && n > p.size {
		p.size = n
	}
	e.pipesMade++
	return p, true
}

// putPipe takes an empty pipe back.
func (e *Epoll) putPipe(p pipe) {
	if len(e.pipes) >= keepPipes {
		p.close(e)
		return
	}
	e.pipes = append(e.pipes, p)
}

func (p pipe) close(e *Epoll) {
	closeFD(p.r)
	closeFD(p.w)
	e.pipesMade--
}

// closePipes is called at the end of the loop.
func (e *Epoll) closePipes() {
	for _, p := range e.pipes {
		p.close(e)
	}
	e.pipes = nil
}

// readPipe reads what a pipe holds.
func readPipe(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

// splice moves up to n bytes from one descriptor to another, one of which is a pipe; 0 without an error is the end.
func splice(from, to, n int) (int, syscall.Errno) {
	for {
		k, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno == 0 {
			return int(k), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
