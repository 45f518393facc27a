// Package httpapi is the resource API of the control plane: what the command line and the dashboard talk to,
// on a unix socket for the local user and on TCP for whoever has the admin token. It promises that a set of
// files is stored as a whole or not at all, and that nothing it refuses has any effect. It decides nothing
// about traffic. Safe for concurrent use. Start reading at New, then apply.go.
package httpapi

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/internal/peer"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/telemetry"
)

// maxBody bounds a request.
const maxBody = 8 << 20

// Config of an API. Store, Registry, Tokens, Admin, Log and Now are needed; what is nil of the others is
// answered with 503.
type Config struct {
	Store    store.Store
	Registry registry.View
	Tokens   *token.Tokens
	Admin    string // bearer token of the TCP side; at least 20 bytes
	Scrape   string // likewise, which opens /metrics and nothing else; "": none does
	Log      *slog.Logger
	Now      func() time.Time
	Info     Info

	// RouteTable answers the compiled route table of a port, RouteTables also those of the namespaces with consumer routes for it.
	RouteTable  func(model.PortName) (*model.RouteTable, bool)
	RouteTables func(model.PortName) []*model.RouteTable
	// RouteStatus answers what a route's author is told.
	RouteStatus func(v1alpha1.Object) []v1alpha1.RouteParentStatus
	// PolicyStatus answers what a policy's author is told.
	PolicyStatus func(*v1alpha1.TrafficPolicy) v1alpha1.TrafficPolicyStatus
	// SecurityStatus answers what the author of a policy about security is told.
	SecurityStatus func(v1alpha1.Object) v1alpha1.SecurityPolicyStatus
	// ExternalStatus answers what the author of an ExternalService is told.
	ExternalStatus func(*v1alpha1.ExternalService) v1alpha1.ExternalServiceStatus
	// UsedStatus answers what the author of a FaultInjection or a DirectResponse is told.
	UsedStatus func(v1alpha1.Object) v1alpha1.UsedStatus
	// PoolStatus answers what the author of an InferencePool is told.
	PoolStatus func(*v1alpha1.InferencePool) v1alpha1.InferencePoolStatus
	// Metrics writes them in Prometheus text format.
	Metrics func(io.Writer) error
	// Reach waits until what the functions above answer shows a revision of the store, or ctx ends.
	Reach func(ctx context.Context, revision int64)
	// Compiler answers what compiles what is in force now.
	Compiler func() compile.Compiler
	// Takes tries a request on a route, as the data plane would; nil: what the conflict search finds is believed.
	Takes compile.Takes
	// Callers answers the proxies that use a port's cluster or its routes for a caller's namespace, "namespace/workload".
	Callers func(name model.PortName, caller string) []string
	// Edges answers what flowed in the last window, merged over all proxies, counts of the window only; for a
	// window of 0 everything that they have counted since they began.
	Edges func(ctx context.Context, window time.Duration) ([]telemetry.Edge, error)
	// Behind answers the workloads whose proxies do not enforce the store's revision yet.
	Behind func(revision int64) []Straggler
	// Outages answers what was learned about how long failures last, and the last ones.
	Outages func() []outage.Destination
	// Decisions answers what the services that wanted takes have let in and what not, from a time on.
	Decisions func(wanted func(model.ServiceName) bool, from time.Time) []decisions.Service
	// Recall asks the proxies that are connected here what they remember.
	Recall func(context.Context, flight.Question) (flight.Found, error)
	// Proxies answers the connected proxies.
	Proxies func() []Proxy
	// Captures answers the alarms about workloads whose traffic does not go through their proxies; nil: nobody knows.
	Captures func() []trust.Alarm
	// Trust keeps whom the mesh believes.
	Trust *trust.Keeper
}

// API serves the requests of both sides.
type API struct {
	cfg   Config
	mux   *http.ServeMux
	apply chan struct{} // holds one token: applies go one after the other
}

// New makes an API; it serves through LocalServer and RemoteServer.
func New(cfg Config) *API {
	a := &API{cfg: cfg, mux: http.NewServeMux(), apply: make(chan struct{}, 1)}
	for pattern, f := range map[string]func(*http.Request) (any, error){
		"POST /v1/apply":                               a.serveApply,
		"GET /v1/objects/{kind}":                       a.fresh(a.serveList),
		"GET /v1/objects/{kind}/{namespace}/{name}":    a.fresh(a.serveGet),
		"DELETE /v1/objects/{kind}/{namespace}/{name}": a.serveDelete,
		"GET /v1/control":                              a.serveControl,
		"GET /v1/status":                               a.serveStatus,
		"GET /v1/endpoints":                            a.serveEndpoints,
		"GET /v1/routes":                               a.fresh(a.serveRoutes),
		"GET /v1/retries":                              a.serveRetries,
		"GET /v1/conflicts":                            a.fresh(a.serveConflicts),
		"POST /v1/authz/check":                         a.fresh(a.serveAuthzCheck),
		"GET /v1/authz/suggest":                        a.fresh(a.serveSuggest),
		"POST /v1/authz/what-if":                       a.fresh(a.serveWhatIf),
		"GET /v1/plaintext":                            a.fresh(a.servePlaintext),
		"GET /v1/stat":                                 a.serveStat,
		"GET /v1/explain":                              a.serveExplain,
		"GET /v1/wait":                                 a.serveWait,
		"GET /v1/certificates":                         a.trusted(a.serveCertificates),
		"GET /v1/bundle":                               a.trusted(a.serveBundle),
		"POST /v1/certificates/rotate":                 a.trusted(a.serveRotate),
		"GET /v1/revocations":                          a.trusted(a.serveRevoked),
		"POST /v1/revocations":                         a.trusted(a.serveRevocation),
		"POST /v1/revocations/restore":                 a.trusted(a.serveRestore),
		"GET /v1/tokens":                               a.serveTokens,
		"POST /v1/tokens":                              a.serveIssue,
		"GET /v1/bindings":                             func(r *http.Request) (any, error) { return a.cfg.Tokens.Bindings(r.Context()) },
		"DELETE /v1/bindings/{namespace}/{account}/{service}": a.serveUnbind,
		"DELETE /v1/tokens/{id}":                              a.serveRevoke,
	} {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, f) })
	}
	a.mux.HandleFunc("GET "+metricsPath, a.serveMetrics)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no %s %s: is this 'tulle' as new as its control plane?", r.Method, r.URL.Path)})
	})
	return a
}

// serveMetrics writes the metrics of this control plane.
func (a *API) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	if a.cfg.Metrics == nil {
		writeError(w, missing("with metrics"))
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if err := a.cfg.Metrics(w); err != nil {
		a.cfg.Log.Debug("metrics not written", "error", err)
	}
}

// freshWait is how long an answer waits for what was stored before it was asked for.
const freshWait = 2 * time.Second

// fresh lets f see what was stored before: whoever has applied something finds it in the next listing.
func (a *API) fresh(f func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		a.catchUp(r.Context())
		return f(r)
	}
}

// catchUp waits until what is compiled shows what was stored before.
func (a *API) catchUp(ctx context.Context) {
	if a.cfg.Reach == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, freshWait)
	defer cancel()
	if revision, err := a.cfg.Store.Revision(ctx); err == nil { // without a store it is what is known
		a.cfg.Reach(ctx, revision)
	}
}

// peerKey is where the verdict on a connection's peer is.
type peerKey struct{}

// LocalServer answers a server for a unix socket: it serves this user and root in this network and user
// namespace.
func (a *API) LocalServer() *http.Server {
	s := a.server(func(r *http.Request) *Error {
		if err, _ := r.Context().Value(peerKey{}).(error); err != nil {
			a.cfg.Log.Warn("administration refused", "error", err)
			return &Error{Status: http.StatusForbidden, Message: "this program may not administer the mesh: " + err.Error()}
		}
		return nil
	})
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		u, ok := c.(*net.UnixConn)
		if !ok {
			return context.WithValue(ctx, peerKey{}, errors.New("not a unix socket"))
		}
		if _, err := peer.Trusted(u); err != nil {
			return context.WithValue(ctx, peerKey{}, err)
		}
		return ctx
	}
	return s
}

// metricsPath is where metrics are.
const metricsPath = "/metrics"

// RemoteServer answers a server for TCP: it serves whoever has the admin token, /metrics to who has Scrape, and /v1/ready to all.
func (a *API) RemoteServer() *http.Server {
	return a.server(func(r *http.Request) *Error {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && r.URL.Path == metricsPath && a.cfg.Scrape != "" && subtle.ConstantTimeCompare([]byte(given), []byte(a.cfg.Scrape)) == 1 {
			return nil
		}
		if !ok || subtle.ConstantTimeCompare([]byte(given), []byte(a.cfg.Admin)) != 1 {
			if r.URL.Path == metricsPath {
				return &Error{Status: http.StatusUnauthorized, Message: "the token is missing or wrong: the one for metrics is in metrics.token in the control plane's data folder"}
			}
			return &Error{Status: http.StatusUnauthorized, Message: "the admin token is missing or wrong: it is in admin.token in the control plane's data folder"}
		}
		return nil
	})
}

func (a *API) server(allow func(*http.Request) *Error) *http.Server {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/ready" { // being served is being ready: the servers start last
			writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
			return
		}
		if err := allow(r); err != nil {
			writeError(w, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		a.mux.ServeHTTP(w, r)
	})
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
	}
}

// guarded answers an error for what panics. net/http would close the connection without a word, which looks as if nobody were there.
func (a *API) guarded(r *http.Request, f func(*http.Request) (any, error)) (v any, err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			a.cfg.Log.Error("a request made the control plane panic: please report it", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			v, err = nil, &Error{Status: http.StatusInternalServerError, Message: "the control plane failed at this request: its log says where"}
		}
	}()
	return f(r)
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, f func(*http.Request) (any, error)) {
	v, err := a.guarded(r, f)
	if err == nil {
		writeJSON(w, http.StatusOK, v)
		return
	}
	var e *Error
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &big):
		e = &Error{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the request is over %d bytes: apply fewer files at once", maxBody)}
	case errors.Is(err, store.ErrNotFound):
		e = &Error{Status: http.StatusNotFound, Message: err.Error()}
	case errors.Is(err, store.ErrConflict):
		e = &Error{Status: http.StatusConflict, Message: err.Error()}
	case errors.Is(err, store.ErrInvalid):
		e = &Error{Status: http.StatusBadRequest, Message: err.Error()}
	default:
		a.cfg.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		e = &Error{Status: http.StatusInternalServerError, Message: err.Error()}
	}
	writeError(w, e)
}

func writeError(w http.ResponseWriter, e *Error) { writeJSON(w, e.Status, e) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"message":"the answer could not be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

func missing(what string) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Message: "this control plane does not answer " + what}
}

func bad(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}
