package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/internal/peer"
)

// Bounds of the supervisor's socket.
const (
	orderWait = 5 * time.Second // for an order, once somebody has connected
	tellWait  = time.Second     // for whoever gave it to take what is told
	maxOrders = 8               // connections at once
	maxReady  = 10 * time.Minute
	maxDrain  = 24 * time.Hour
)

// orderProtocol is the version of what is said on the socket. Fields may be added without a new one.
const orderProtocol = 1

// order is one line from whoever has connected, with the descriptor of the new binary: the path may mean another file
// where the supervisor is, or later.
type order struct {
	Protocol int    `json:"protocol"`
	Kind     string `json:"kind"`  // "upgrade"
	Ready    int64  `json:"ready"` // milliseconds for the new proxy to become ready
	Drain    int64  `json:"drain"` // milliseconds for the old one to drain

	link *bootstrap.Link
	exe  *os.File
}

// Proxy is one proxy process.
type Proxy struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// Progress is what is told about an upgrade: that it was refused or failed (Error), that the new proxy has taken over
// (New is set, Drained is not), or that the old one has ended (Drained).
type Progress struct {
	Error   string `json:"error,omitempty"`
	Old     Proxy  `json:"old,omitzero"`
	New     Proxy  `json:"new,omitzero"`
	Drained bool   `json:"drained,omitempty"`
	Took    int64  `json:"took,omitempty"` // milliseconds that the old one took to drain
	Open    int    `json:"open,omitempty"` // connections that were cut when its time was up
}

// tell is not to hold up the supervisor: what cannot be told at once is not told.
func (o *order) tell(p Progress) {
	if o.link.SetDeadline(time.Now().Add(tellWait)) == nil {
		_ = o.link.SendFiles(p, nil) // whoever asked may be gone; the upgrade goes on
	}
}

// refuse answers an order that is not carried out, and ends it.
func (o *order) refuse(why string) {
	o.tell(Progress{Error: why})
	o.end()
}

func (o *order) end() {
	o.link.Close()
	if o.exe != nil {
		o.exe.Close()
		o.exe = nil
	}
}

// orders is the supervisor's socket. It hands what comes to the goroutine of Run.
type orders struct {
	path  string
	l     *net.UnixListener
	emit  func(event)
	tasks sync.WaitGroup

	mu     sync.Mutex
	closed bool
	links  map[*bootstrap.Link]bool // nothing has come on them yet
}

// takeOrders opens the socket, 0600 in a folder that is the user's alone.
func (s *supervisor) takeOrders() error {
	b := &s.Bootstrap
	if b.DataDir == "" {
		return nil
	}
	path := bootstrap.SupervisorSocket(b.DataDir, b.Namespace, b.Workload)
	if len(path) > 107 {
		return fmt.Errorf("supervisor's socket: %s is longer than the 107 bytes that a unix socket may have; choose a shorter --data-dir", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("supervisor's socket: %w", err)
	}
	os.Remove(path) // of a workload of this name that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		return fmt.Errorf("supervisor's socket: %w", err)
	}
	s.orders = &orders{path: path, l: l, emit: s.emit, links: map[*bootstrap.Link]bool{}}
	s.orders.tasks.Go(s.orders.accept)
	return nil
}

func (o *orders) close() {
	if o == nil {
		return
	}
	o.l.Close() // removes the file as well
	o.mu.Lock()
	o.closed = true
	for l := range o.links {
		l.Close()
	}
	o.mu.Unlock()
	// Whoever is about to emit needs a reader, or the end of Run, which closes done; it is not waited for here.
}

func (o *orders) accept() {
	for {
		c, err := o.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // descriptors have run out
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if _, err := peer.Trusted(c); err != nil {
			c.Close()
			continue
		}
		l := bootstrap.Over(c)
		o.mu.Lock()
		ok := !o.closed && len(o.links) < maxOrders
		if ok {
			o.links[l] = true
		}
		o.mu.Unlock()
		if !ok {
			l.Close()
			continue
		}
		o.tasks.Go(func() { o.hear(l) })
	}
}

// hear reads the one order of a connection.
func (o *orders) hear(l *bootstrap.Link) {
	x := &order{link: l}
	err := l.SetDeadline(time.Now().Add(orderWait))
	if err == nil {
		err = l.ReceiveFiles(x, x.take)
	}
	o.mu.Lock()
	delete(o.links, l)
	o.mu.Unlock()
	switch {
	case err != nil:
		x.end() // somebody who only looked, or who does not know what to say
	case x.Protocol != orderProtocol || x.Kind != "upgrade":
		x.refuse(fmt.Sprintf("this supervisor does not know order %q of version %d; it is older than the command: restart the workload", x.Kind, x.Protocol))
	case x.exe == nil:
		x.refuse("one binary has to come with the order")
	default:
		o.emit(event{order: x})
	}
}

// take keeps the binary, with a number that a child's own descriptors cannot have.
func (o *order) take(fds []int) error {
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if len(fds) != 1 {
		return nil // hear says so
	}
	fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 16)
	if err != nil {
		return err
	}
	o.exe = os.NewFile(uintptr(fd), "binary")
	return nil
}

// Workload is one that a supervisor of this user runs.
type Workload struct{ Namespace, Name, socket string }

// String answers "namespace/name".
func (w Workload) String() string { return w.Namespace + "/" + w.Name }

// Workloads answers what runs with a data folder, ordered by name. Sockets that nobody serves are left out.
func Workloads(dataDir string) ([]Workload, error) {
	dir := bootstrap.SupervisorDir(dataDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Workload
	for _, e := range entries {
		name, namespace, ok := strings.Cut(strings.TrimSuffix(e.Name(), ".sock"), ".")
		if !ok || !strings.HasSuffix(e.Name(), ".sock") {
			continue
		}
		w := Workload{Namespace: namespace, Name: name, socket: filepath.Join(dir, e.Name())}
		c, err := net.Dial("unix", w.socket)
		if err != nil {
			continue
		}
		c.Close()
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Workload) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// Upgrade asks the supervisor of w to replace its proxy by one of binary: ready bounds the time until the new one has
// taken over, drain the time that the old one has for what is open. told is called when the new one has taken over and
// when the old one has ended; the order is carried out further even if the caller ends in between. An error is one
// line: nothing has changed, unless told has been called before.
func Upgrade(w Workload, binary *os.File, ready, drain time.Duration, told func(Progress)) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: w.socket})
	if err != nil {
		return fmt.Errorf("%s: its supervisor does not answer: %w", w, err)
	}
	l := bootstrap.Over(c)
	defer l.Close()
	o := order{Protocol: orderProtocol, Kind: "upgrade", Ready: ready.Milliseconds(), Drain: drain.Milliseconds()}
	if err := l.SendFiles(&o, []int{int(binary.Fd())}); err != nil {
		return fmt.Errorf("%s: %w", w, err)
	}
	for wait := ready; ; wait = drain {
		var p Progress
		if err := l.SetDeadline(time.Now().Add(wait + 2*goodbyeTimeout)); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
		if err := l.ReceiveFiles(&p, nil); err != nil {
			return fmt.Errorf("%s: its supervisor broke off; see what it has written: %w", w, err)
		}
		if p.Error != "" {
			return fmt.Errorf("%s: %s", w, p.Error)
		}
		told(p)
		if p.Drained {
			return nil
		}
	}
}
