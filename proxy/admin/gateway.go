package admin

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/proxy/observe"
)

// Gateway is what a proxy without a workload tells about itself. Its methods may be called from any goroutine.
type Gateway interface {
	Ready() error
	Config() any // of JSON; secrets are left out
	Clusters() []Cluster
	Listeners() []Listener
	Connections() int64
	DrainListeners() // returns at once
}

// Cluster is one cluster as it is now.
type Cluster struct {
	Name      string     `json:"name"`
	Dynamic   bool       `json:"dynamic"`
	Discovery string     `json:"discovery"`
	Policy    string     `json:"policy"`
	Breakers  []Breaker  `json:"circuit_breakers,omitempty"` // by priority; none: the cluster has no bounds
	Made      uint64     `json:"rq_retry"`                   // further attempts
	Refused   uint64     `json:"rq_retry_overflow"`          // that the budget, or the bound of retries, did not allow
	Left      int64      `json:"retry_budget_left"`          // attempts that the budget allows now; -1: there is none
	Endpoints []Endpoint `json:"endpoints"`
}

// Breaker is what a cluster may have under way with one priority, and what it has now. A bound of the largest number is none.
type Breaker struct {
	Priority       string `json:"priority"` // "default" or "high"
	MaxConnections uint32 `json:"max_connections"`
	MaxPending     uint32 `json:"max_pending_requests"`
	MaxRequests    uint32 `json:"max_requests"`
	MaxRetries     uint32 `json:"max_retries"`
	Connections    int64  `json:"cx_active"`
	Pending        int64  `json:"rq_pending_active"`
	Requests       int64  `json:"rq_active"`
	Retries        int64  `json:"rq_retry_active"`
}

// Endpoint is one endpoint as it is now.
type Endpoint struct {
	Address  string `json:"address"`
	Hostname string `json:"hostname,omitempty"`
	Health   string `json:"health"` // "healthy", or Envoy's flags, each behind a slash
	Weight   uint32 `json:"weight"`
	Priority uint32 `json:"priority"`
	Locality string `json:"locality,omitempty"`
	Active   int64  `json:"active"` // requests and relayed connections
	Total    uint64 `json:"total"`
	// ConnectFailures is how many connections in a row could not be made.
	ConnectFailures int `json:"connect_failures"`
	// Where health is checked, and outliers are looked for: how many checks there were, how many of them were not passed,
	// and how often it was ejected.
	Checks        uint64 `json:"health_checks,omitempty"`
	CheckFailures uint64 `json:"health_check_failures,omitempty"`
	Ejections     uint64 `json:"ejections,omitempty"`
}

// Listener is one listener as it is now.
type Listener struct {
	Name        string   `json:"name"`
	Addresses   []string `json:"addresses"` // that it is bound to
	Chains      int      `json:"filter_chains"`
	Connections int64    `json:"connections"`
	Dynamic     bool     `json:"dynamic"`
	State       string   `json:"state"` // "active", or what it waits for
}

// GatewayConfig of the admin server of a gateway. Listener, Observer and Gateway are required.
type GatewayConfig struct {
	Listener net.Listener // closed by Close
	Observer *observe.Observer
	Gateway  Gateway
	Level    *slog.LevelVar    // what /logging changes; nil: it cannot be changed
	Info     map[string]string // told by /server_info
	Began    time.Time
	Logs     *observe.Logs // of the requests that are answered; nil: none
	Log      *slog.Logger  // nil: silent
}

// writeTime bounds an answer: a profile may take a minute.
const writeTime = 2 * time.Minute

// Listen opens the address of a gateway's admin server. One that is not a loopback address has to be permitted.
func Listen(at netip.AddrPort, open bool) (net.Listener, error) {
	if !open && !at.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("admin address %s is not a loopback one: everybody who reaches it could read the configuration and stop the proxy; choose 127.0.0.1", at)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("admin address %s: %w", at, err)
	}
	return l, nil
}

// StartGateway serves in the background.
func StartGateway(cfg GatewayConfig) *Server {
	s := &Server{cfg: Config{Observer: cfg.Observer, Ready: cfg.Gateway.Ready, Info: cfg.Info, Log: cfg.Log}}
	if s.cfg.Log == nil {
		s.cfg.Log = slog.New(slog.DiscardHandler)
	}
	s.serveWithin(cfg.Listener, s.gatewayRoutes(&cfg), writeTime)
	return s
}

func (s *Server) gatewayRoutes(cfg *GatewayConfig) http.Handler {
	m := http.NewServeMux()
	var paths []string
	route := func(pattern string, h http.HandlerFunc) {
		paths = append(paths, pattern)
		m.HandleFunc(pattern, h)
	}
	route("GET /ready", s.ready)
	route("GET /metrics", s.metrics)
	route("GET /stats/prometheus", s.metrics)
	route("GET /config_dump", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, cfg.Gateway.Config()) })
	route("GET /clusters", func(w http.ResponseWriter, r *http.Request) { s.clusters(w, r, cfg.Gateway.Clusters()) })
	route("GET /listeners", func(w http.ResponseWriter, r *http.Request) { s.listeners(w, r, cfg.Gateway.Listeners()) })
	route("GET /server_info", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, serverInfo(cfg)) })
	route("GET /memory", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, memory()) })
	route("GET /logging", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, level(cfg)) })
	route("POST /logging", func(w http.ResponseWriter, r *http.Request) { s.logging(w, r, cfg) })
	route("POST /drain_listeners", func(w http.ResponseWriter, _ *http.Request) {
		cfg.Gateway.DrainListeners()
		fmt.Fprintln(w, "OK")
	})
	route("GET /debug/pprof/", pprof.Index)
	m.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	m.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	help := strings.Join(paths, "\n") + "\n"
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, help) })
	if cfg.Logs != nil {
		return logged(notFromPages(m), cfg.Logs, cfg.Began)
	}
	return notFromPages(m)
}

// notFromPages refuses what a web page makes its visitor's browser send: it could drain a proxy on the loopback, or, by a
// name of its own that it lets point there, read its configuration.
func notFromPages(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet && r.Header.Get("Origin") != "":
			http.Error(w, "requests from web pages are refused", http.StatusForbidden)
		case onLoopback(r) && !local(r.Host):
			http.Error(w, "on the loopback the host must be an address or a name without a dot", http.StatusForbidden)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// onLoopback reports whether the connection ends at a loopback address.
func onLoopback(r *http.Request) bool {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// local reports whether a Host is an address, or a name that nobody else can have made point here: localhost, or one without
// a dot.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || !strings.Contains(host, ".")
}

// clusters answers as JSON, or line by line for people, as Envoy does.
func (s *Server) clusters(w http.ResponseWriter, r *http.Request, all []Cluster) {
	slices.SortFunc(all, func(a, b Cluster) int { return strings.Compare(a.Name, b.Name) })
	if r.URL.Query().Get("format") == "json" {
		s.answer(w, map[string]any{"clusters": all})
		return
	}
	for i := range all {
		c := &all[i]
		fmt.Fprintf(w, "%s::discovery::%s\n%s::policy::%s\n%s::dynamic::%t\n", c.Name, c.Discovery, c.Name, c.Policy, c.Name, c.Dynamic)
		for j := range c.Breakers {
			b := &c.Breakers[j]
			for _, v := range []struct {
				name string
				n    int64
			}{{"max_connections", int64(b.MaxConnections)}, {"max_pending_requests", int64(b.MaxPending)}, {"max_requests", int64(b.MaxRequests)},
				{"max_retries", int64(b.MaxRetries)}, {"cx_active", b.Connections}, {"rq_pending_active", b.Pending}, {"rq_active", b.Requests},
				{"rq_retry_active", b.Retries}} {
				fmt.Fprintf(w, "%s::%s_priority::%s::%d\n", c.Name, b.Priority, v.name, v.n)
			}
		}
		fmt.Fprintf(w, "%s::rq_retry::%d\n%s::rq_retry_overflow::%d\n%s::retry_budget_left::%d\n", c.Name, c.Made, c.Name, c.Refused, c.Name, c.Left)
		for j := range c.Endpoints {
			e := &c.Endpoints[j]
			for _, v := range [][2]string{{"health_flags", e.Health}, {"hostname", e.Hostname}, {"weight", strconv.Itoa(int(e.Weight))},
				{"priority", strconv.Itoa(int(e.Priority))}, {"locality", e.Locality}, {"rq_active", strconv.FormatInt(e.Active, 10)},
				{"rq_total", strconv.FormatUint(e.Total, 10)}, {"cx_connect_fail", strconv.Itoa(e.ConnectFailures)},
				{"health_checks", strconv.FormatUint(e.Checks, 10)}, {"health_check_failures", strconv.FormatUint(e.CheckFailures, 10)},
				{"ejections", strconv.FormatUint(e.Ejections, 10)}} {
				fmt.Fprintf(w, "%s::%s::%s::%s\n", c.Name, e.Address, v[0], v[1])
			}
		}
	}
}

func (s *Server) listeners(w http.ResponseWriter, r *http.Request, all []Listener) {
	slices.SortFunc(all, func(a, b Listener) int { return strings.Compare(a.Name, b.Name) })
	if r.URL.Query().Get("format") == "json" {
		s.answer(w, map[string]any{"listeners": all})
		return
	}
	for i := range all {
		fmt.Fprintf(w, "%s::%s\n", all[i].Name, strings.Join(all[i].Addresses, ","))
	}
}

func serverInfo(cfg *GatewayConfig) map[string]any {
	state := "LIVE"
	if err := cfg.Gateway.Ready(); err != nil {
		state = err.Error()
	}
	info := map[string]any{"state": state, "uptime": time.Since(cfg.Began).Round(time.Second).String(),
		"connections": cfg.Gateway.Connections(), "go": runtime.Version()}
	for k, v := range cfg.Info {
		info[k] = v
	}
	return info
}

func memory() map[string]uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return map[string]uint64{"allocated": m.HeapAlloc, "heap_size": m.HeapSys - m.HeapReleased, "stacks": m.StackSys, "total": m.Sys}
}

func level(cfg *GatewayConfig) map[string]string {
	if cfg.Level == nil {
		return map[string]string{"level": "fixed"}
	}
	return map[string]string{"level": strings.ToLower(cfg.Level.Level().String())}
}

// logging sets the level: ?level=debug.
func (s *Server) logging(w http.ResponseWriter, r *http.Request, cfg *GatewayConfig) {
	name := r.URL.Query().Get("level")
	var to slog.Level
	if name != "" {
		if err := to.UnmarshalText([]byte(name)); err != nil || cfg.Level == nil {
			http.Error(w, "logging: say level=debug, info, warn or error", http.StatusBadRequest)
			return
		}
		cfg.Level.Set(to)
	}
	s.answer(w, level(cfg))
}
