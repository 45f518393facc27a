package handover

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// Listener is one listening socket.
type Listener struct {
	Address string // that it is bound to, as written by netip.AddrPort; unique among those of a proxy
	FD      int
}

// Offer is what the old proxy gives away.
type Offer struct {
	Listeners []Listener // duplicates (F_DUPFD_CLOEXEC): Serve closes them
	Tickets   []byte     // Tickets.Bytes, or nil
}

// Config of Serve. Path, Offer, Yield and Log are needed.
type Config struct {
	Path    string        // of the unix socket
	Version string        // of this program
	Within  time.Duration // for a successor to become ready; 0: DefaultReady
	Log     *slog.Logger

	// Offer answers what this proxy listens on now. It is called for every successor.
	Offer func() (Offer, error)

	// Yield: the successor accepts on the addresses in took. Stop accepting on all listeners, and close this process's
	// descriptors of those that were taken (else their queues live as long as this process). Accept what is Queued on the
	// others and close them. When it returns, no connection is accepted here any more; the successor is told, and this
	// proxy should drain and end. Called once in the life of a Server, not on the goroutine of the caller of Serve.
	Yield func(took map[string]bool)

	// After: the hand-over that this proxy itself began with; nil if it began without one. It says that whoever serves
	// Path now is about to end.
	After *Taken
}

// Server waits for a successor.
type Server struct {
	cfg   Config
	l     *net.UnixListener
	at    place
	tasks sync.WaitGroup

	mu      sync.Mutex
	busy    bool // a successor is being served
	yielded bool
	closed  bool
	links   map[*bootstrap.Link]bool
}

// Serve makes the socket at c.Path and waits there for a successor until Close. It answers an error if another proxy
// serves the path (unless that is c.After's), or if the socket cannot be made.
func Serve(c Config) (*Server, error) {
	if c.Within == 0 {
		c.Within = DefaultReady
	}
	if c.After == nil {
		if other, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: c.Path}); err == nil {
			other.Close()
			return nil, fmt.Errorf("hand-over: another proxy serves %s: name another path, or take over from it", c.Path)
		}
	}
	l, err := listenUnix(c.Path)
	if err != nil {
		return nil, fmt.Errorf("hand-over: socket %s: %w", c.Path, err)
	}
	s := &Server{cfg: c, l: l, at: placeOf(c.Path), links: map[*bootstrap.Link]bool{}}
	s.tasks.Go(s.accept)
	return s, nil
}

// Close takes no successor any more, gives up one that is not ready yet (it ends, this proxy's end is its caller's
// word), and removes the socket if it is still this proxy's. From anywhere but Offer and Yield.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.links {
		l.Close()
	}
	s.mu.Unlock()
	if placeOf(s.cfg.Path) == s.at {
		os.Remove(s.cfg.Path)
	}
	s.l.Close()
	s.tasks.Wait()
}

// Yielded reports whether a successor has taken over.
func (s *Server) Yielded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.yielded
}

func (s *Server) accept() {
	for {
		c, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // descriptors have run out: whoever asks is told nothing and asks again
			s.cfg.Log.Warn("hand-over", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		link, err := trusted(c)
		if err != nil {
			s.cfg.Log.Warn("hand-over refused", "error", err)
			continue
		}
		if !s.keep(link) {
			link.Close()
			continue
		}
		s.tasks.Go(func() {
			defer s.end(link)
			s.talk(link)
		})
	}
}

// keep notes a connection, so that Close ends it; false if there are too many.
func (s *Server) keep(l *bootstrap.Link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.links) >= maxAsking {
		return false
	}
	s.links[l] = true
	return true
}

func (s *Server) end(l *bootstrap.Link) {
	l.Close()
	s.mu.Lock()
	delete(s.links, l)
	s.mu.Unlock()
}

// talk hears what somebody wants, and gives it to one at a time.
func (s *Server) talk(l *bootstrap.Link) {
	asked, err := receive(l, kindTake, time.Now().Add(answerWait), nil)
	if errors.Is(err, io.EOF) {
		return // a look whether somebody is here
	}
	if err != nil {
		s.cfg.Log.Warn("hand-over refused", "error", err)
		_ = send(l, message{Kind: kindRefused, Error: err.Error()}, nil) // it may be gone
		return
	}
	if no := s.begin(); no != nil {
		_ = send(l, message{Kind: kindRefused, Error: no.why, Again: no.again}, nil) // likewise
		return
	}
	defer s.free()
	if err := s.serve(l, asked); err != nil {
		s.cfg.Log.Warn("a successor did not take over; this proxy carries on", "error", err)
		_ = send(l, message{Kind: kindRefused, Error: err.Error()}, nil) // likewise; it must not believe that this proxy is gone
	}
}

// begin answers why a successor has to go, nil if it is the one.
func (s *Server) begin() *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed, s.yielded:
		return &refusal{"the proxy is about to end", true}
	case s.busy:
		return &refusal{"another proxy is taking over right now; try again when it has", false}
	}
	s.busy = true
	return nil
}

func (s *Server) free() {
	s.mu.Lock()
	s.busy = false
	s.mu.Unlock()
}

// serve is one hand-over.
func (s *Server) serve(l *bootstrap.Link, asked message) error {
	log := s.cfg.Log.With("successor", asked.PID, "version", asked.Version)
	log.Info("a successor takes over")
	if err := s.offer(l); err != nil {
		return err
	}
	ready, err := receive(l, kindReady, time.Now().Add(s.cfg.Within), nil)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("process %d was not ready within %s", asked.PID, s.cfg.Within)
	case err != nil:
		return fmt.Errorf("process %d: %w", asked.PID, err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("this proxy is about to end")
	}
	s.yielded = true
	s.mu.Unlock()
	took := make(map[string]bool, len(ready.Took))
	for _, a := range ready.Took {
		took[a] = true
	}
	s.cfg.Yield(took)
	if err := send(l, message{Kind: kindYielded}, nil); err != nil {
		log.Warn("the successor was ready and is gone", "error", err)
	}
	log.Info("a successor has taken over", "listeners", len(took))
	return nil
}

// offer sends the listeners in messages of at most perMessage.
func (s *Server) offer(l *bootstrap.Link) error {
	o, err := s.cfg.Offer()
	defer func() {
		for _, x := range o.Listeners {
			unix.Close(x.FD)
		}
	}()
	if err == nil && len(o.Listeners) > maxListeners {
		err = fmt.Errorf("%d listeners are more than the %d that can be handed over", len(o.Listeners), maxListeners)
	}
	if err != nil {
		return err
	}
	m := message{Kind: kindOffer, Version: s.cfg.Version, PID: os.Getpid(), Tickets: o.Tickets}
	for rest := o.Listeners; ; m = (message{Kind: kindOffer}) {
		n := min(len(rest), perMessage)
		fds := make([]int, n)
		for i, x := range rest[:n] {
			m.Listeners, fds[i] = append(m.Listeners, x.Address), x.FD
		}
		rest = rest[n:]
		m.More = len(rest) > 0
		if err := send(l, m, fds); err != nil || !m.More {
			return err
		}
	}
}
