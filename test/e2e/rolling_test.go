//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/examples/shop"
)

// town is the shop, and a service that talks over WebSockets and streams, under about 500 requests a second.
type town struct {
	*mesh
	instances map[string]*process // by service, version and number
	loads     []*loader
	begun     time.Time
}

func newTown(t *testing.T, flags ...string) *town {
	w := &town{mesh: newMesh(t, flags...), instances: map[string]*process{}}
	for i, in := range w.all() {
		w.instances[fmt.Sprint(in.Service, in.Version, i)] = w.open(in)
	}
	w.begun = time.Now()
	w.loads = []*loader{
		w.loadBy(5, "load", "-connections", "5", "-pause", "40ms", "http://web:8080/product/thread"),
		w.loadBy(4, "load", "-connections", "4", "-pause", "40ms", "-post", "http://cart:8080/cart/buyer/thread"),
		w.loadBy(2, "shop-load", "payment:9000", "checkout:9000"),
		w.loadBy(4, "talk-load", "talk:8080", "talk:9000"),
	}
	return w
}

// all answers what the town consists of.
func (w *town) all() (out []shop.Instance) {
	for _, in := range shop.Instances() {
		if in.Port != "" {
			out = append(out, in)
		}
	}
	return append(out, shop.Instance{Service: "talk", Version: "v1"})
}

// open starts one instance and waits until it is announced.
func (w *town) open(in shop.Instance) *process {
	w.t.Helper()
	flags := []string{"--service", in.Service, "--version", in.Version}
	command := []string{self(w.t), "shop", in.Service, in.Version}
	if in.Service == "talk" {
		flags = append(flags, "--port", "8080/http", "--port", "9000/grpc", "--ready", "http:/healthz")
		command = []string{self(w.t), "talk"}
	} else {
		flags = append(flags, "--port", in.Port, "--ready", in.Ready)
	}
	p := w.run(flags, command...)
	w.announced(p)
	return p
}

// leave ends one as an orchestrator does.
func (w *town) leave(p *process) {
	w.t.Helper()
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.wait(patience); code != 0 {
		w.t.Errorf("%s ended with %d", p.name, code)
	}
	w.t.Logf("%s has left in %s", p.name, time.Since(begin).Round(time.Millisecond))
}

// flawless waits for more of every load and fails the test if anything has failed since the beginning.
func (w *town) flawless(what string) {
	w.t.Helper()
	for _, l := range w.loads {
		l.more(20)
		if c := l.counts(); c.Failed != 0 {
			w.t.Fatalf("%s: %d of %d failed: %v", what, c.Failed, c.OK+c.Failed, c.Errors)
		}
	}
}

// finish ends the loads and says what they were.
func (w *town) finish() {
	w.t.Helper()
	sum, took := 0, time.Since(w.begun)
	for _, l := range w.loads {
		c := l.finish()
		if sum += c.OK; c.Failed != 0 {
			w.t.Errorf("%d of %d failed: %v", c.Failed, c.OK+c.Failed, c.Errors)
		}
	}
	w.t.Logf("%d requests and messages in %s, %.0f a second", sum, took.Round(time.Second), float64(sum)/took.Seconds())
}

// TestRollingRestart: every service of the shop is replaced, instance by instance, and no request of any protocol fails;
// streams end only because the program that leaves says so.
func TestRollingRestart(t *testing.T) {
	w := newTown(t)
	for i, in := range w.all() {
		key := fmt.Sprint(in.Service, in.Version, i)
		next := w.open(in)
		w.leave(w.instances[key])
		w.instances[key] = next
		w.flawless(in.Service + " was replaced")
	}
	w.finish()
}

// TestChanges: whatever changes around running services, no request fails: more and fewer instances, routes, policies,
// certificates, a control plane that is restarted in order, and one that dies.
func TestChanges(t *testing.T) {
	w := newTown(t, "--identity-lifetime", "50s", "--log-level", "debug")

	var more []*process
	for range 2 {
		for _, in := range w.all() {
			if in.Service == "catalog" || in.Service == "cart" || in.Service == "payment" {
				more = append(more, w.open(in))
			}
		}
	}
	w.flawless("scaled up")
	for _, p := range more {
		w.leave(p)
	}
	w.flawless("scaled down")

	for _, share := range []int{10, 50, 100, 0} {
		w.apply(weights(100-share, share))
		w.flawless(fmt.Sprint(share, " % to v2"))
	}
	w.apply(reviewsRoute("  - backendRefs: [{name: reviews-v1, port: 8080}]\n    timeouts: {request: 9s, backendRequest: 8s}\n"))
	w.flawless("time limits")
	w.ok(w.cli("delete", "httproute", "reviews"))
	w.flawless("the route deleted")

	for _, spec := range []string{
		"balancing: {policy: PeakEWMA}", "balancing: {policy: RoundRobin, slowStart: {window: 5s}}", "connections: {maxRequests: 20}",
		"retries: {attempts: 3}", "timeouts: {request: 9s}\n  ejection: {}", "breakers: {requests: 1000}", "concurrency: {}",
	} {
		for _, service := range []string{"catalog", "cart", "payment", "web"} {
			w.apply(fmt.Sprintf("apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: %s}]\n  %s\n", service, service, spec))
		}
		w.flawless(spec)
	}
	for _, service := range []string{"catalog", "cart", "payment", "web"} {
		w.ok(w.cli("delete", "trafficpolicy", service))
	}
	w.flawless("the policies deleted")

	w.control.signal(syscall.SIGTERM)
	if code := w.control.wait(patience); code != 0 {
		t.Errorf("tulle up ended with %d", code)
	}
	w.flawless("the control plane away")
	w.up()
	w.flawless("the control plane back")
	w.control.killAll()
	w.flawless("the control plane dead")
	w.up()
	w.flawless("the control plane up again")

	// Every identity has been renewed half of its life after it was given.
	eventually(t, time.Minute, "every certificate renewed", func() error {
		log := w.control.stderr()
		for _, in := range w.all() {
			if !strings.Contains(log, "identity renewed\" id=spiffe://tulle.local/ns/default/sa/"+in.Service) {
				return errors.New(in.Service)
			}
		}
		return nil
	})
	w.flawless("certificates renewed")
	w.finish()
}
