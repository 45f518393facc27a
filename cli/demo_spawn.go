package cli

import (
	"iter"
	"os/exec"
	"runtime"
	"strings"
)

// forker starts processes from one thread that lives until close: the parent-death signal is bound to the thread
// that forked, not to the process.
type forker struct{ work chan func() }

func newForker() forker {
	f := forker{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for do := range f.work {
			do()
		}
	}()
	return f
}

func (f forker) start(c *exec.Cmd) error {
	done := make(chan error)
	f.work <- func() { done <- c.Start() }
	return <-done
}

// close ends the thread, and with it every process that was started and still runs.
func (f forker) close() { close(f.work) }

// linesOf answers the lines of s without their ends.
func linesOf(s string) iter.Seq[string] { return strings.SplitSeq(s, "\n") }
