package loop

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
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

// CPU answers how much time the loop's thread has used, in steps of 10 ms.
func (e *Epoll) CPU() time.Duration {
	b, err := os.ReadFile("/proc/self/task/" + strconv.FormatInt(e.tid.Load(), 10) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
