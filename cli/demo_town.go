package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/examples/shop"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Times of the demo.
const (
	demoStart    = 60 * time.Second // for everything to be up and traffic on every edge
	demoRestart  = 3 * time.Second  // until a control plane that died is started again
	demoStopLoad = 20 * time.Second // for the load's open sessions to end
	demoStop     = 10 * time.Second // for everything else to end
)

// town is the demo's processes and their folder. Its methods are called from one goroutine, but for the
// watch over the control plane.
type town struct {
	exe, dir   string
	http, grpc string // addresses of the control plane
	instances  []*resident
	forker     forker

	mu        sync.Mutex
	control   *resident // replaced when it died
	closing   bool
	died      int // how often the control plane died
	watchDone chan struct{}
}

// resident is one process of the demo.
type resident struct {
	shop.Instance
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

func newTown() (*town, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tulle-demo-")
	if err != nil {
		return nil, err
	}
	t := &town{exe: exe, dir: dir, watchDone: make(chan struct{}), forker: newForker()}
	close(t.watchDone)
	for _, addr := range []*string{&t.http, &t.grpc} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			os.RemoveAll(dir)
			return nil, err
		}
		defer l.Close() // both are held until both are known
		*addr = l.Addr().String()
	}
	return t, nil
}

func (t *town) data() string { return filepath.Join(t.dir, "data") }

// spawn starts a process of this binary in a group of its own, so that the terminal's Ctrl-C reaches only the demo,
// which ends the others in order. The kernel ends it if the demo itself is killed.
func (t *town) spawn(name string, args ...string) (*resident, error) {
	r := &resident{log: filepath.Join(t.dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(t.exe, args...)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := t.forker.start(r.cmd); err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait() // how it ended is in its log
		close(r.done)
	}()
	return r, nil
}

func (t *town) spawnControl() (*resident, error) {
	return t.spawn("control", "up", "--data-dir", t.data(), "--http-listen", t.http, "--grpc-listen", t.grpc)
}

// start brings everything up and returns when traffic flows on every edge.
func (t *town) start(ctx context.Context, say func(string, ...any)) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	say("control plane: starting (data and logs in %s)", t.dir)
	control, err := t.spawnControl()
	if err != nil {
		return err
	}
	t.control = control
	if err := t.until(ctx, control, func(ctx context.Context) bool { _, err := t.edges(ctx); return err == nil }); err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	t.watchDone = make(chan struct{})
	go t.watchControl()
	say("control plane: ready after %s", time.Since(begin).Round(10*time.Millisecond))
	counts := map[string]int{}
	for _, i := range shop.Instances() {
		counts[i.Service]++
		r, err := t.spawn(fmt.Sprintf("%s-%s-%d", i.Service, i.Version, counts[i.Service]), t.runArgs(i)...)
		if err != nil {
			return err
		}
		r.Instance = i
		t.instances = append(t.instances, r)
	}
	say("%d workloads: starting, each in a network of its own", len(t.instances))
	err = t.until(ctx, nil, func(ctx context.Context) bool {
		edges, err := t.edges(ctx)
		return err == nil && len(summarize(edges).missing()) == 0
	})
	if err != nil {
		edges, _ := t.edges(context.WithoutCancel(ctx)) // only to say what is missing
		return fmt.Errorf("%w; no traffic yet on %v", err, summarize(edges).missing())
	}
	say("traffic on every edge after %s", time.Since(begin).Round(10*time.Millisecond))
	return nil
}

func (t *town) runArgs(i shop.Instance) []string {
	args := []string{"run", "--data-dir", t.data(), "--service", i.Service, "--version", i.Version}
	if i.Port != "" {
		args = append(args, "--port", i.Port, "--ready", i.Ready)
	}
	for _, e := range shop.Edges() {
		if e.Source == i.Service {
			args = append(args, "--wait-for", e.Destination)
		}
	}
	if i.Service == "load" {
		return append(args, "--", t.exe, "shop", i.Service)
	}
	return append(args, "--", t.exe, "shop", i.Service, i.Version)
}

// until waits for done, for the end of ctx, or for the end of a process that ought to run (r, and all instances).
func (t *town) until(ctx context.Context, r *resident, done func(context.Context) bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done(ctx) {
			return nil
		}
		if r != nil && r.ended() {
			return errors.New(lastLine(r.log))
		}
		for _, i := range t.instances {
			if i.ended() {
				return fmt.Errorf("%s %s ended: %s", i.Service, i.Version, lastLine(i.log))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not up after %s", demoStart)
		case <-tick.C:
		}
	}
}

func (r *resident) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// watchControl starts the control plane again when it died: traffic goes on meanwhile, and it forgets nobody.
func (t *town) watchControl() {
	defer close(t.watchDone)
	for {
		t.mu.Lock()
		r := t.control
		t.mu.Unlock()
		<-r.done
		time.Sleep(demoRestart)
		t.mu.Lock()
		if t.closing {
			t.mu.Unlock()
			return
		}
		t.died++
		next, err := t.spawnControl()
		if err == nil {
			t.control = next
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// flow lets traffic flow for d, or until ctx ends.
func (t *town) flow(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return nil
}

// edges answers what all proxies have counted since they began.
func (t *town) edges(ctx context.Context) ([]telemetry.Edge, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return totalEdges(ctx, t.data())
}

// finish ends the load, reads the counts when they have settled, and answers them. The rest still runs.
func (t *town) finish() (demoResult, error) {
	load := t.instances[len(t.instances)-1]
	load.stop(demoStopLoad)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// Proxies report every second: two equal sums a good second apart are the last word.
	var last demoResult
	for {
		edges, err := t.edges(ctx)
		if err == nil {
			now := summarize(edges)
			if fmt.Sprint(now) == fmt.Sprint(last) {
				return now, nil
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return last, errors.New("the counts did not settle within 20 s")
		case <-time.After(1500 * time.Millisecond):
		}
	}
}

// close ends everything that was started: callers before those they call, the control plane last.
func (t *town) close() {
	var wg sync.WaitGroup
	for _, r := range t.instances {
		wg.Go(func() { r.stop(demoStop) })
	}
	wg.Wait()
	t.mu.Lock()
	t.closing = true
	control := t.control
	t.mu.Unlock()
	if control != nil {
		control.stop(demoStop)
	}
	<-t.watchDone
	t.forker.close()
}

// stop asks a process to end, and makes it end after wait.
func (r *resident) stop(wait time.Duration) {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-r.done:
	case <-time.After(wait):
		_ = r.cmd.Process.Kill()
		<-r.done
	}
}

// lastLine answers the last line of a log, which says why a process ended.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	line := ""
	for l := range linesOf(string(b)) {
		if l != "" {
			line = l
		}
	}
	if line == "" {
		return "it said nothing"
	}
	return line
}
