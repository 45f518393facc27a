// Package admin answers questions about this proxy over HTTP: metrics and readiness for scrapers and probes on
// the metrics listener, everything else for its own user on a unix socket. Listeners are given; nothing here
// is on the path of a request. Start reading at Config.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Config of the servers. Observer is required.
type Config struct {
	Metrics  net.Listener // /metrics, /ready and /health; nil: none. It is closed by Close
	Admin    net.Listener // a unix socket; nil: none. It is closed by Close
	Observer *observe.Observer
	Live     *live.Live                               // nil: nothing to tell
	Ready    func() error                             // nil error: this proxy takes traffic; nil: always
	Health   func(context.Context) error              // asks the program; nil error: it is well. nil: /health is not there
	Drain    func()                                   // begins to drain and returns at once; nil: /drain is not there
	Explain  func(flight.Question) []flight.Explained // answers what the flight recorders keep, the newest first; nil: /explain is not there
	Info     map[string]string                        // told by /stats: name, version, workload
	Log      *slog.Logger                             // nil: silent
}

// Server serves until Close.
type Server struct {
	cfg      Config
	servers  []*http.Server
	ended    sync.WaitGroup
	draining sync.Once
}

// Start serves on the listeners of cfg in the background.
func Start(cfg Config) *Server {
	s := &Server{cfg: cfg}
	if s.cfg.Log == nil {
		s.cfg.Log = slog.New(slog.DiscardHandler)
	}
	s.serve(cfg.Metrics, s.metricsRoutes())
	s.serve(cfg.Admin, s.adminRoutes())
	return s
}

// Close ends the servers: requests that are being answered have one second to end.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, h := range s.servers {
		if h.Shutdown(ctx) != nil {
			h.Close()
		}
	}
	s.ended.Wait()
}

func (s *Server) serve(l net.Listener, h http.Handler) { s.serveWithin(l, h, 30*time.Second) }

// serveWithin serves answers that take as long as write at most.
func (s *Server) serveWithin(l net.Listener, h http.Handler, write time.Duration) {
	if l == nil {
		return
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: write,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: numbered(),
	}
	s.servers = append(s.servers, srv)
	s.ended.Add(1)
	go func() {
		defer s.ended.Done()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error("admin server ended; metrics and admin of this proxy are gone until it restarts", "address", l.Addr().String(), "error", err)
		}
	}()
}

func (s *Server) metricsRoutes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /metrics", s.metrics)
	m.HandleFunc("GET /ready", s.ready)
	if s.cfg.Health != nil {
		m.HandleFunc("GET /health", s.health)
	}
	return m
}

func (s *Server) adminRoutes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /metrics", s.metrics)
	m.HandleFunc("GET /ready", s.ready)
	m.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.stats()) })
	if s.cfg.Live != nil {
		m.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.cfg.Live.Dump()) })
		m.HandleFunc("GET /routes", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.cfg.Live.Dump().Ports) })
		m.HandleFunc("GET /endpoints", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.cfg.Live.Dump().Clusters) })
	}
	m.HandleFunc("GET /accesslog", func(w http.ResponseWriter, _ *http.Request) {
		s.answer(w, map[string]bool{"on": s.cfg.Observer.AccessLogOn()})
	})
	m.HandleFunc("POST /accesslog", s.accessLog)
	if s.cfg.Explain != nil {
		m.HandleFunc("GET /explain", s.explain)
	}
	if s.cfg.Drain != nil {
		m.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
			s.draining.Do(s.cfg.Drain)
			s.answer(w, map[string]bool{"draining": true})
		})
	}
	return m
}

// Stats is the answer of /stats.
type Stats struct {
	Info  map[string]string `json:"info"`
	Edges []telemetry.Edge  `json:"edges"`
}

func (s *Server) stats() Stats {
	edges := s.cfg.Observer.Edges()
	if edges == nil {
		edges = []telemetry.Edge{}
	}
	return Stats{Info: s.cfg.Info, Edges: edges}
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if err := s.cfg.Observer.WriteMetrics(w); err != nil {
		s.cfg.Log.Debug("metrics not written", "error", err)
	}
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	io.WriteString(w, "ready\n")
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if err := s.cfg.Health(r.Context()); err != nil {
		http.Error(w, "the program is not well: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "well\n")
}

func (s *Server) accessLog(w http.ResponseWriter, r *http.Request) {
	on, err := strconv.ParseBool(r.URL.Query().Get("on"))
	if err != nil {
		http.Error(w, "accesslog: say on=true or on=false", http.StatusBadRequest)
		return
	}
	s.cfg.Observer.AccessLog(on)
	s.answer(w, map[string]bool{"on": s.cfg.Observer.AccessLogOn()})
}

func (s *Server) answer(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.cfg.Log.Error("admin answer not encoded", "error", err)
		http.Error(w, "internal: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}
