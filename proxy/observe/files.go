package observe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// FilesConfig is what Files are made with; everything has a default.
type FilesConfig struct {
	// Open opens the file of an access log; nil: os.OpenFile, to append. "/dev/stdout" and "/dev/stderr" are the
	// process's own.
	Open func(path string) (io.WriteCloser, error)
	// Delay is how long lines are collected before they are written; default 100 ms.
	Delay time.Duration
	// Pending is how many bytes wait to be written to one file at most; then lines are dropped and counted. Default 1 MiB.
	Pending  int
	Hostname string // of %HOSTNAME%; default the machine's
}

// Files are the files that access logs are written to, each by one goroutine: a slow disk never holds up a loop. All
// methods are safe for concurrent use. Close ends the goroutines.
type Files struct {
	cfg FilesConfig

	mu   sync.Mutex
	open map[string]*logFile
	shut bool
}

// NewFiles makes Files without a file.
func NewFiles(cfg FilesConfig) *Files {
	if cfg.Open == nil {
		cfg.Open = openFile
	}
	if cfg.Delay <= 0 {
		cfg.Delay = 100 * time.Millisecond
	}
	if cfg.Pending <= 0 {
		cfg.Pending = 1 << 20
	}
	if cfg.Hostname == "" {
		cfg.Hostname, _ = os.Hostname()
	}
	return &Files{cfg: cfg, open: map[string]*logFile{}}
}

func openFile(path string) (io.WriteCloser, error) {
	switch path {
	case "/dev/stdout":
		return unclosed{os.Stdout}, nil
	case "/dev/stderr":
		return unclosed{os.Stderr}, nil
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// unclosed is a file that is not ours to close.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// Logs compiles access logs and opens their files; those that other Logs have open are shared. A file stays open until
// Close: chains come and go, their files seldom do.
func (f *Files) Logs(all []model.AccessLog) (*Logs, error) {
	l := &Logs{hostname: f.cfg.Hostname}
	for i := range all {
		c, err := compile(&all[i])
		if err != nil {
			return nil, fmt.Errorf("access log %s: %w", all[i].Path, err)
		}
		if c.file, err = f.file(all[i].Path); err != nil {
			return nil, fmt.Errorf("access log: %w; choose a path that this process may write", err)
		}
		l.note(c)
	}
	return l, nil
}

func (f *Files) file(path string) (*logFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return nil, errors.New("the access logs are closed")
	}
	if o := f.open[path]; o != nil {
		return o, nil
	}
	w, err := f.cfg.Open(path)
	if err != nil {
		return nil, err
	}
	o := &logFile{files: f, path: path, w: w, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	f.open[path] = o
	o.ended.Add(1)
	go o.run()
	return o, nil
}

// Reopen opens every file anew, after its waiting lines are written: the old ones may have been moved away.
func (f *Files) Reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.open {
		o.again.Store(true)
		o.rouse()
	}
}

// Dropped answers how many lines could not be written.
func (f *Files) Dropped() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := uint64(0)
	for _, o := range f.open {
		n += o.dropped.Load()
	}
	return n
}

// Close writes what waits and closes the files. Lines that come later are dropped.
func (f *Files) Close() {
	f.mu.Lock()
	all := f.open
	f.shut = true
	f.mu.Unlock()
	for _, o := range all {
		o.once.Do(func() { close(o.stop) })
		o.ended.Wait()
	}
}

// logFile is one file. Loops append whole lines under mu, which is held for the copy of one line only; the goroutine
// takes all of them at once.
type logFile struct {
	files   *Files
	path    string
	w       io.WriteCloser // belongs to the goroutine
	wake    chan struct{}
	stop    chan struct{}
	once    sync.Once
	ended   sync.WaitGroup
	again   atomic.Bool // open it anew
	dropped atomic.Uint64

	mu   sync.Mutex
	wait []byte
}

// put queues one line.
func (o *logFile) put(line []byte) {
	o.mu.Lock()
	first := len(o.wait) == 0
	if len(o.wait)+len(line) > o.files.cfg.Pending {
		o.mu.Unlock()
		o.dropped.Add(1)
		return
	}
	o.wait = append(o.wait, line...)
	o.mu.Unlock()
	if first {
		o.rouse()
	}
}

func (o *logFile) rouse() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *logFile) run() {
	defer o.ended.Done()
	var spare []byte
	timer := time.NewTimer(o.files.cfg.Delay)
	defer timer.Stop()
	for {
		select {
		case <-o.wake:
			timer.Reset(o.files.cfg.Delay)
			select {
			case <-timer.C:
			case <-o.stop:
			}
		case <-o.stop:
			o.flush(spare)
			_ = o.w.Close()
			return
		}
		spare = o.flush(spare)
		if o.again.Swap(false) {
			o.reopen()
		}
	}
}

// flush writes what waits and answers memory for what comes next.
func (o *logFile) flush(spare []byte) []byte {
	o.mu.Lock()
	all := o.wait
	o.wait = spare[:0]
	o.mu.Unlock()
	if len(all) == 0 {
		return all
	}
	if _, err := o.w.Write(all); err != nil {
		o.dropped.Add(1)
	}
	if cap(all) > 64<<10 && len(all) < cap(all)/4 {
		return nil // a burst is over
	}
	return all
}

// reopen keeps the old file when the new one cannot be opened.
func (o *logFile) reopen() {
	w, err := o.files.cfg.Open(o.path)
	if err != nil {
		o.dropped.Add(1)
		return
	}
	_ = o.w.Close()
	o.w = w
}
