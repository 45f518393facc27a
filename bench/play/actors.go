package play

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Actors are servers that play what each request says in x-play: a status, "reset", "slow" (a second, then well) or "work" (half of
// one), how often for an x-id, all servers taken together, and the seconds of a retry-after. Otherwise they answer well. Every answer
// names its server in x-back, and path and host that it was asked for in x-path and x-host.
type Actors struct {
	servers []*http.Server

	mu   sync.Mutex
	sick string
	seen map[string]int // by x-id
	got  map[string]int // by name
}

// Add starts one with a name, and answers its address.
func (a *Actors) Add(name string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.answer(name, w, r) })}
	a.servers = append(a.servers, s)
	go func() { _ = s.Serve(l) }() // ends with Close
	return l.Addr().String(), nil
}

// Close ends all of them.
func (a *Actors) Close() {
	for _, s := range a.servers {
		_ = s.Close() // its listener may be closed
	}
}

// Sick says which of them fails its health checks.
func (a *Actors) Sick(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sick = name
}

// Forget forgets what was seen.
func (a *Actors) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.got = map[string]int{}, map[string]int{}
}

// Got answers how many requests each has got since.
func (a *Actors) Got() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.got)
}

func (a *Actors) answer(name string, w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	sick := a.sick == name
	if r.URL.Path == "/healthz" {
		a.mu.Unlock()
		if sick {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	id := r.Header.Get("X-Id")
	n := 1
	if a.seen != nil { // nobody has asked yet: a check
		a.seen[id]++
		a.got[name]++
		n = a.seen[id]
	}
	a.mu.Unlock()
	h := w.Header()
	h.Set("X-Back", name)
	h.Set("X-Path", r.RequestURI)
	h.Set("X-Host", r.Host)
	what, times, after := "", 0, ""
	_, _ = fmt.Sscan(r.Header.Get("X-Play"), &what, &times, &after) // fewer words are well
	if n > times {
		what = ""
	}
	code := http.StatusOK
	switch what {
	case "":
	case "reset":
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
		return
	case "slow":
		<-time.After(time.Second)
	case "work":
		<-time.After(time.Second / 2)
	default:
		_, _ = fmt.Sscan(what, &code)
	}
	if after != "" && code != http.StatusOK {
		h.Set("Retry-After", after)
	}
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = fmt.Fprintln(w, strings.Repeat("x", 20)) // who asked may have gone
	}
}
