package observe

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model/record"
)

// accessLog writes lines from one goroutine, so that a slow disk never holds up a loop. Loops make the lines
// (a record must not outlive its exchange) in buffers that come back when they are written.
type accessLog struct {
	on      atomic.Bool
	dropped atomic.Uint64
	w       io.Writer
	queue   chan *[]byte
	buffers sync.Pool
	stop    chan struct{}
	ended   sync.WaitGroup
}

// maxLine is the largest buffer that is kept for the next line, in bytes.
const maxLine = 16 << 10

func newAccessLog(w io.Writer, queue int, on bool) *accessLog {
	l := &accessLog{w: w, queue: make(chan *[]byte, queue), stop: make(chan struct{})}
	l.buffers.New = func() any { b := make([]byte, 0, 1024); return &b }
	l.on.Store(on && w != nil)
	if w != nil {
		l.ended.Add(1)
		go l.write()
	}
	return l
}

// put makes the line of r and queues it; with a full queue it is dropped and counted.
func (l *accessLog) put(r *record.Record) {
	if len(l.queue) == cap(l.queue) {
		l.dropped.Add(1)
		return
	}
	b := l.buffers.Get().(*[]byte)
	*b = appendLine((*b)[:0], r)
	select {
	case l.queue <- b:
	default:
		l.dropped.Add(1)
		l.buffers.Put(b)
	}
}

func (l *accessLog) write() {
	defer l.ended.Done()
	for {
		select {
		case b := <-l.queue:
			l.line(b)
		case <-l.stop:
			for {
				select {
				case b := <-l.queue:
					l.line(b)
				default:
					return
				}
			}
		}
	}
}

func (l *accessLog) line(b *[]byte) {
	if _, err := l.w.Write(*b); err != nil {
		l.dropped.Add(1)
	}
	if cap(*b) <= maxLine {
		l.buffers.Put(b)
	}
}

func (l *accessLog) close() {
	l.on.Store(false)
	close(l.stop)
	l.ended.Wait()
}
