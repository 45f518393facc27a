// Package load is the benchmark's client: it keeps a fixed number of connections busy (closed loop) or offers a
// constant rate whatever happens (open loop, so that a slow answer delays nothing and waiting is counted), and says how
// much was done and how long it took. It knows HTTP/1.1, HTTP/2, gRPC unary and streamed, bulk TCP and new
// connections, plain or over TLS. It is made for constant small messages: it checks that every answer is complete and a
// success, and nothing else. One goroutine per connection. Start reading at Run.
package load

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what is measured.
type Kind string

// Kinds.
const (
	HTTP1      Kind = "HTTP/1.1"
	HTTP2      Kind = "HTTP/2"
	GRPCUnary  Kind = "gRPC unary"
	GRPCStream Kind = "gRPC stream"
	TCP        Kind = "TCP bulk"
	Connects   Kind = "new connections"
)

// Plan says what to do. It travels as JSON to the process that does it.
type Plan struct {
	Kind        Kind
	Address     string
	Host        string // authority
	Connections int
	Streams     int           // HTTP/2 and gRPC: requests (messages of a stream) at once per connection
	For         time.Duration // how long
	Rate        float64       // requests a second over all connections; 0: as fast as answers come
	// TLS, if CA is set: its certificate, and ours. Files.
	CA, Certificate, Key string
	Curve                string // "X25519", "X25519MLKEM768"; "": the default
	ServerName           string
	// Hold opens the connections one after the other with one HTTP/1.1 request each, says Held on the standard output and
	// keeps them until the standard input ends.
	Hold bool
	// Cookies makes HTTP/1.1 clients send the cookie that they were given last.
	Cookies bool
	// Every is how often it is noted how much has been done: Result.Counts; 0: never.
	Every time.Duration
}

// Count is how much had been done at a time.
type Count struct {
	At   int64 // Unix ns
	Done int64
}

// Held is what is said when all connections of a Hold stand.
const Held = "held\n"

// Result is what was done.
type Result struct {
	Done      int64 // requests, messages, connections; TCP: kilobytes
	Elapsed   time.Duration
	P50, P99  time.Duration // of each; Rate only
	Failed    int64
	FirstFail string
	Counts    []Count `json:",omitempty"` // Plan.Every
}

// DoneAt answers how much had been done at a time, between two counts in proportion; false: before the first or after the last.
func (r Result) DoneAt(at time.Time) (float64, bool) {
	ns := at.UnixNano()
	i, _ := slices.BinarySearchFunc(r.Counts, ns, func(c Count, ns int64) int { return cmp.Compare(c.At, ns) })
	if i == 0 || i == len(r.Counts) {
		return 0, false
	}
	a, b := r.Counts[i-1], r.Counts[i]
	return float64(a.Done) + float64(b.Done-a.Done)*float64(ns-a.At)/float64(b.At-a.At), true
}

// Run does what p says.
func Run(p Plan) (Result, error) {
	cfg, err := p.tls()
	if err != nil {
		return Result{}, err
	}
	if p.Hold {
		return Result{}, hold(p, cfg)
	}
	begin := time.Now()
	clients := make([]client, p.Connections)
	var all sync.WaitGroup
	for i := range clients {
		c := &clients[i]
		c.plan, c.tls, c.end = p, cfg, begin.Add(p.For)
		if p.Rate > 0 {
			c.every = time.Duration(float64(p.Connections) / p.Rate * float64(time.Second))
			c.next = begin.Add(c.every * time.Duration(i) / time.Duration(p.Connections))
		}
		all.Go(c.run)
	}
	stop, counts := make(chan struct{}), make(chan []Count, 1)
	go func() { counts <- countUp(clients, p.Every, stop) }()
	all.Wait()
	close(stop)
	r := collect(clients, time.Since(begin))
	r.Counts = <-counts
	return r, nil
}

// countUp notes how much has been done until it is stopped.
func countUp(clients []client, every time.Duration, stop <-chan struct{}) (counts []Count) {
	if every == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return counts
		case <-tick.C:
			n := Count{At: time.Now().UnixNano()}
			for i := range clients {
				n.Done += clients[i].done.Load()
			}
			counts = append(counts, n)
		}
	}
}

// client is one connection's worth of load.
type client struct {
	plan  Plan
	tls   *tls.Config
	end   time.Time
	every time.Duration // open loop: between two requests of this connection
	next  time.Time     // when the next one is due

	done  atomic.Int64
	took  []time.Duration
	fails int64
	fail  error
}

func (c *client) run() {
	var err error
	switch c.plan.Kind {
	case HTTP1:
		err = c.http1()
	case HTTP2, GRPCUnary, GRPCStream:
		err = c.http2()
	case TCP:
		err = c.bulk()
	case Connects:
		err = c.connects()
	default:
		err = fmt.Errorf("no such kind of load: %q", c.plan.Kind)
	}
	if err != nil {
		c.fails++
		c.fail = cmp.Or(c.fail, err)
	}
}

// wait waits until the next request is due and answers since when its time counts; false: the end.
func (c *client) wait() (time.Time, bool) {
	now := time.Now()
	if c.every == 0 {
		return now, now.Before(c.end)
	}
	due := c.next
	c.next = due.Add(c.every)
	if due.After(c.end) {
		return due, false
	}
	return due, c.sleepUntil(due) == nil
}

// sleepUntil sleeps in the kernel: the runtime's timers are late by up to a millisecond, which is more than a proxy adds.
func (c *client) sleepUntil(due time.Time) error {
	for {
		left := time.Until(due)
		if left <= 0 {
			return nil
		}
		ts := unix.NsecToTimespec(int64(left))
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && err != unix.EINTR {
			return err
		}
	}
}

func (c *client) count(since time.Time) {
	c.done.Add(1)
	if c.every > 0 {
		c.took = append(c.took, time.Since(since))
	}
}

// dial connects; the deadline of the whole plan holds for everything on the connection.
func (c *client) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	n, err := d.Dial("tcp", c.plan.Address)
	if err != nil {
		return nil, err
	}
	if err := n.SetDeadline(c.end.Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if c.tls == nil {
		return n, nil
	}
	t := tls.Client(n, c.tls)
	if err := t.Handshake(); err != nil {
		return nil, errors.Join(fmt.Errorf("handshake: %w", err), n.Close())
	}
	return t, nil
}

// tls answers the configuration, nil for plain connections.
func (p *Plan) tls() (*tls.Config, error) {
	if p.CA == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: p.ServerName, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	cfg.RootCAs.AppendCertsFromPEM(ca)
	switch p.Kind {
	case HTTP2, GRPCUnary, GRPCStream:
		cfg.NextProtos = []string{"h2"}
	case TCP:
		cfg.NextProtos = nil
	}
	switch p.Curve {
	case "X25519":
		cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	case "X25519MLKEM768":
		cfg.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	}
	if p.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func collect(clients []client, elapsed time.Duration) Result {
	r := Result{Elapsed: elapsed}
	var took []time.Duration
	for i := range clients {
		c := &clients[i]
		r.Done += c.done.Load()
		r.Failed += c.fails
		if c.fail != nil && r.FirstFail == "" {
			r.FirstFail = c.fail.Error()
		}
		took = append(took, c.took...)
	}
	if n := len(took); n > 0 {
		slices.Sort(took)
		r.P50, r.P99 = took[n/2], took[n*99/100]
	}
	return r
}

// hold is described at Plan.Hold.
func hold(p Plan, cfg *tls.Config) error {
	c := &client{plan: p, tls: cfg, end: time.Now().Add(p.For)}
	request := []byte("GET / HTTP/1.1\r\nHost: " + p.Host + "\r\n\r\n")
	var all []net.Conn
	defer func() {
		for _, n := range all {
			_ = n.Close() // it has served
		}
	}()
	for range p.Connections {
		n, err := c.dial()
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(all), err)
		}
		all = append(all, n)
		if _, err := n.Write(request); err != nil {
			return err
		}
		if err := readResponse(bufio.NewReaderSize(n, 2<<10), nil); err != nil {
			return fmt.Errorf("connection %d: %w", len(all), err)
		}
	}
	if _, err := os.Stdout.WriteString(Held); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
