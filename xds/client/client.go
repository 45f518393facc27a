package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/delta"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// typeURLs per Kind.
var typeURLs = [kinds]string{resource.TypeService, resource.TypeRouteTable, resource.TypeCluster, resource.TypeEndpoints,
	resource.TypeSecurity, resource.TypeTrust}

// sayAgain is how often an outage that lasts is said.
const sayAgain = time.Minute

// Client is a proxy's connection to the control plane. One goroutine owns the connection and calls the Sink;
// what other goroutines ask for is noted under mu and the owner is woken.
type Client struct {
	cfg  Config
	sink Sink
	wake chan struct{} // holds one
	stop context.CancelFunc
	done sync.WaitGroup

	current atomic.Pointer[grpc.ClientConn] // nil: none

	shows      *svid.SVID // the owner's: the identity in force when the present connection was begun
	asked      time.Time  // the owner's: when the present session was begun
	away, said time.Time  // the owner's: since when the control plane has not been reachable, when that was said last,
	why        codes.Code // and why

	mu       sync.Mutex
	protocol *delta.Client
	ready    bool
	learnt   map[uint16]model.Protocol
	outages  []recovery.Report // that were not sent
	decided  decision.Report   // that was not sent
	answers  answers
	proof    *tullepb.Shown    // what Shown was told last; nil: nothing
	capture  *tullepb.Captured // what Captured was told last; nil: nothing
	stats    []byte            // the newest report that was not sent
	gone     bool              // Withdraw was called: never announced again
	retired  bool              // Retire was called: this proxy speaks for the workload no more
	parted   chan struct{}     // closed when the control plane answered the goodbye
	st       State
	news     news
}

// news is what the present session has not been told yet.
type news struct {
	ready, goodbye bool
	shown          bool // proof has been told
	captured       bool // capture has been told
	learned        []uint16
}

func newClient(cfg Config) (*Client, error) {
	switch {
	case cfg.Address == "":
		return nil, errors.New("xds client: no address of the control plane")
	case cfg.Identity == nil || cfg.Server.IsZero():
		return nil, errors.New("xds client: no identity, neither this proxy's nor the control plane's")
	case cfg.Workload.Name == "" || cfg.Workload.Namespace == "" || cfg.Workload.Service == "":
		return nil, errors.New("xds client: the workload has no name, namespace or service")
	}
	if cfg.Workload.ServiceAccount == "" {
		cfg.Workload.ServiceAccount = cfg.Workload.Service
	}
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = 100 * time.Millisecond
	}
	if cfg.MaxBackoff < cfg.MinBackoff {
		cfg.MaxBackoff = max(3*time.Second, cfg.MinBackoff)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		cfg: cfg, wake: make(chan struct{}, 1), protocol: delta.NewClient(cfg.Workload.Namespace + "/" + cfg.Workload.Name),
		learnt: map[uint16]model.Protocol{}, parted: make(chan struct{}),
	}, nil
}

func (c *Client) start(sink Sink) {
	c.sink = sink
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() { c.run(ctx) })
}

func (c *Client) close() {
	if c.stop != nil {
		c.stop()
	}
	c.done.Wait()
}

// run connects until ctx ends.
func (c *Client) run(ctx context.Context) {
	wait := c.cfg.MinBackoff
	for ctx.Err() == nil {
		c.shows = c.cfg.Identity.Current()
		joined, err := c.serve(ctx)
		if ctx.Err() != nil || c.isRetired() {
			return
		}
		if joined {
			wait = c.cfg.MinBackoff
		}
		why := status.Convert(err).Message()
		if status.Code(err) == codes.Unauthenticated {
			c.judge(errors.New(why))
		}
		c.complain(status.Code(err), why)
		c.mu.Lock()
		c.st.LastError = why
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(float64(wait) * (0.7 + 0.6*rand.Float64()))):
		}
		wait = min(2*wait, c.cfg.MaxBackoff)
	}
}

// judged is an identity that is told what the control plane said when it was shown (svid.Rotator); nil: it was taken.
type judged interface {
	Judged(shown *svid.SVID, refused error)
}

func (c *Client) judge(refused error) {
	if j, ok := c.cfg.Identity.(judged); ok {
		j.Judged(c.shows, refused)
	}
}

// complain says that the control plane is away, or does not want us, at once and then every sayAgain; relieve says that
// this is over.
func (c *Client) complain(code codes.Code, why string) {
	now := time.Now()
	switch {
	case c.away.IsZero():
		c.away = now
	case code == c.why && now.Sub(c.said) < sayAgain:
		return
	}
	c.said, c.why = now, code
	what := "control plane not reachable; what is known stays in force"
	switch code {
	case codes.Unauthenticated:
		what = "the control plane refuses this workload's certificate, and so does everybody; another one is asked for"
	case codes.InvalidArgument, codes.PermissionDenied, codes.ResourceExhausted:
		what = "the control plane refuses this workload: nobody can call it, and what it calls is not known"
	}
	c.cfg.Log.Warn(what, "address", c.cfg.Address, "since", c.away.Format(time.TimeOnly), "error", why)
}

func (c *Client) relieve() {
	if !c.away.IsZero() {
		c.cfg.Log.Warn("control plane reachable again", "address", c.cfg.Address, "after", time.Since(c.away).Round(time.Millisecond))
	}
	c.away = time.Time{}
}

// connected notes and tells a change of the connection's state.
func (c *Client) connected(up bool) {
	c.mu.Lock()
	changed := c.st.Connected != up
	if changed {
		c.st.Connected, c.st.Since = up, time.Now()
		if up {
			c.st.LastError = ""
		}
	}
	c.mu.Unlock()
	if changed {
		c.sink.Connected(up)
	}
}

func (c *Client) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) subscribe(kind Kind, name string) {
	c.mu.Lock()
	fresh := c.protocol.Subscribe(typeURLs[kind], name)
	c.mu.Unlock()
	if fresh {
		c.wakeUp()
	}
}

func (c *Client) unsubscribe(kind Kind, name string) {
	c.mu.Lock()
	had := c.protocol.Unsubscribe(typeURLs[kind], name)
	c.mu.Unlock()
	if had {
		c.wakeUp()
	}
}

func (c *Client) setReady(ready bool) {
	c.mu.Lock()
	c.news.ready = c.news.ready || c.ready != ready
	c.ready = ready
	c.mu.Unlock()
	c.wakeUp()
}

func (c *Client) learned(port uint16, p model.Protocol) {
	c.mu.Lock()
	fresh := c.learnt[port] != p
	if fresh {
		c.learnt[port] = p
		c.news.learned = append(c.news.learned, port)
	}
	c.mu.Unlock()
	if fresh {
		c.wakeUp()
	}
}

func (c *Client) shown(chain [][]byte, failing string) {
	c.mu.Lock()
	same := c.proof != nil && c.proof.Failing == failing && slices.EqualFunc(c.proof.Chain, chain, bytes.Equal)
	if !same {
		c.proof, c.news.shown = &tullepb.Shown{Chain: chain, Failing: failing}, false
	}
	c.mu.Unlock()
	if !same {
		c.wakeUp()
	}
}

func (c *Client) captured(broken string, since time.Time, closed bool) {
	m := &tullepb.Captured{Broken: valid(broken), Closed: closed}
	if broken != "" {
		m.Since = since.UnixMilli()
	}
	c.mu.Lock()
	was := c.capture
	same := was == nil && broken == "" || was != nil && was.Broken == m.Broken && was.Closed == m.Closed
	if !same {
		c.capture, c.news.captured = m, false
	}
	c.mu.Unlock()
	if !same {
		c.wakeUp()
	}
}

func (c *Client) report(stats []byte) {
	c.mu.Lock()
	c.stats = stats
	c.mu.Unlock()
	c.wakeUp()
}

func (c *Client) recovered(list []recovery.Report) {
	if len(list) == 0 {
		return
	}
	c.mu.Lock()
	c.outages = append(c.outages, list...)
	if n := len(c.outages) - maxRecovered; n > 0 {
		c.outages = c.outages[:copy(c.outages, c.outages[n:])]
	}
	c.mu.Unlock()
	c.wakeUp()
}

func (c *Client) tellDecisions(r decision.Report) {
	if r.Empty() {
		return
	}
	c.mu.Lock()
	c.decided.Others += r.Others
	c.decided.AddUnproven(r.Unproven, r.UnprovenOthers, maxDecided)
	for i := range r.Of {
		if len(c.decided.Of) < maxDecided {
			c.decided.Of = append(c.decided.Of, r.Of[i])
		} else {
			c.decided.Others += r.Of[i].Count
		}
	}
	c.mu.Unlock()
	c.wakeUp()
}

func (c *Client) reported() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats == nil && c.decided.Empty()
}

func (c *Client) withdraw(ctx context.Context) error {
	c.mu.Lock()
	up, parted, retired := c.st.Connected, c.parted, c.retired
	c.gone, c.news.goodbye = true, true
	c.mu.Unlock()
	if retired {
		return nil
	}
	if !up {
		return fmt.Errorf("the control plane at %s is not reachable; it will notice by itself that the workload is gone", c.cfg.Address)
	}
	c.wakeUp()
	select {
	case <-parted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("withdrawing the workload: %w", ctx.Err())
	}
}

func (c *Client) retire() {
	c.mu.Lock()
	c.retired = true
	c.mu.Unlock()
}

func (c *Client) isRetired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retired
}

func (c *Client) state() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st
}

// apply hands a response to the Sink and answers the acknowledgement.
func (c *Client) apply(r *delta.Response) *delta.Request {
	c.mu.Lock()
	updates := c.protocol.Receive(r)
	c.mu.Unlock()
	refused := map[string]error{}
	for _, u := range updates {
		if err := c.deliver(r.GetTypeUrl(), u); err != nil {
			refused[u.Name] = err
			c.cfg.Log.Error("resource refused; the one before stays in force", "type", r.GetTypeUrl(), "name", u.Name, "error", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rev, err := strconv.ParseUint(r.GetSystemVersionInfo(), 10, 64); err == nil && len(refused) == 0 {
		c.st.Revision = max(c.st.Revision, rev)
	}
	return c.protocol.Finish(r, refused)
}

// deliver decodes one update and passes it on; a name that was unsubscribed meanwhile is passed on as well.
func (c *Client) deliver(typ string, u delta.Update) error {
	a := u.Resource.GetResource()
	switch typ {
	case resource.TypeService:
		return pass(u, func() (*model.Service, error) { return resource.DecodeService(a) }, c.sink.Service)
	case resource.TypeRouteTable:
		return pass(u, func() (*model.RouteTable, error) { return resource.DecodeRouteTable(a) }, c.sink.RouteTable)
	case resource.TypeCluster:
		return pass(u, func() (*model.Cluster, error) { return resource.DecodeCluster(a) }, c.sink.Cluster)
	case resource.TypeEndpoints:
		return pass(u, func() (*model.Endpoints, error) { return resource.DecodeEndpoints(a) }, c.sink.Endpoints)
	case resource.TypeSecurity:
		var refused error
		err := pass(u, func() (*model.Security, error) { return resource.DecodeSecurity(a) }, func(n string, s *model.Security) { refused = c.sink.Security(n, s) })
		return cmp.Or(err, refused)
	case resource.TypeTrust:
		var refused error
		err := pass(u, func() (*model.Trust, error) { return resource.DecodeTrust(a) }, func(n string, t *model.Trust) { refused = c.sink.Trust(n, t) })
		return cmp.Or(err, refused)
	}
	return fmt.Errorf("type %s was not asked for", typ)
}

func pass[M any](u delta.Update, decode func() (*M, error), to func(string, *M)) error {
	if u.Resource == nil {
		to(u.Name, nil)
		return nil
	}
	m, err := decode()
	if err == nil {
		to(u.Name, m)
	}
	return err
}
