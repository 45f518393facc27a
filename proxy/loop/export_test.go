package loop

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pipes answers how many pipes are open, and how many of them are free. On the loop.
func (e *Epoll) Pipes() (made, free int) { return e.pipesMade, len(e.pipes) }

// UsePipes pretends that all pipes are in use. On the loop.
func (e *Epoll) UsePipes() {
	e.closePipes()
	e.pipesMade = maxPipes
}

// SetSplice puts f between the loop and the kernel.
func (e *Epoll) SetSplice(f func(from, to, n int, real func(from, to, n int) (int, syscall.Errno)) (int, syscall.Errno)) {
	done := make(chan struct{})
	e.Post(func() {
		e.splice = func(from, to, n int) (int, syscall.Errno) { return f(from, to, n, splice) }
		close(done)
	})
	<-done
}

// CPU answers how much time the thread that the loop runs on now has used. Threads seldom change.
func (e *Epoll) CPU() time.Duration {
	done := make(chan time.Duration, 1)
	e.Post(func() {
		var r unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_THREAD, &r)
		done <- time.Duration(r.Utime.Nano() + r.Stime.Nano())
	})
	return <-done
}
