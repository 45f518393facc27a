package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/bench/play"
)

// troupe is the programs of a play: services, what is between them, and a client.
type troupe struct {
	w        *world
	data     string // of the mesh, if it is one
	services []string
	next     []string // what each service calls; fewer than services
	url      string   // what the client calls
	asker    string
}

// staged starts a troupe and plays with it; everything ends when it returns.
func (o options) staged(start func(*world) (*troupe, error), f func(*troupe) error) error {
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.close()
	t, err := start(w)
	if err != nil {
		return err
	}
	for i := range t.services {
		c := play.Conduct{}
		if i < len(t.next) {
			c.Next = t.next[i]
		}
		if _, err := t.be(i, c); err != nil {
			return err
		}
	}
	// Nothing is counted before all of it works.
	for end := time.Now().Add(30 * time.Second); ; {
		got, err := t.play(play.Order{URL: t.url, Rate: 50, For: 400 * time.Millisecond, Patience: time.Second})
		if err != nil {
			return err
		}
		if got[""].Good == got[""].Offered {
			return f(t)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d requests are answered after 30 s", got[""].Good, got[""].Offered)
		}
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (t *troupe) socket(name string) string { return filepath.Join(t.w.dir, name+".sock") }

// be tells a service how to answer, and answers how many requests it has got.
func (t *troupe) be(service int, c play.Conduct) (got int, err error) {
	if service < len(t.next) {
		c.Next = t.next[service]
	}
	return got, play.Ask(t.socket(t.services[service]), "be", c, &got)
}

// play lets the client play.
func (t *troupe) play(o play.Order) (out map[string]play.Outcome, err error) {
	return out, play.Ask(t.socket(t.asker), "play", o, &out)
}

// program starts a program on the machine itself and answers where it listens.
func (t *troupe) program(name string) (string, error) {
	address := freePort()
	if _, err := t.w.start(os.Args[0], "-be", "play", address, t.socket(name)); err != nil {
		return "", err
	}
	t.services = append(t.services, name)
	return address, waitFor(address)
}

// caller starts the client on the machine itself.
func (t *troupe) caller() error {
	t.asker = "client"
	address := freePort()
	if _, err := t.w.start(os.Args[0], "-be", "play", address, t.socket(t.asker)); err != nil {
		return err
	}
	return waitFor(address)
}

// mesh starts a control plane with a configuration.
func (t *troupe) mesh(config string) (err error) {
	if t.data, err = t.w.up(); err != nil {
		return err
	}
	return t.w.apply(t.data, config)
}

// apply stores objects.
func (w *world) apply(data, objects string) error {
	c := exec.Command(w.options.tulle, "apply", "--allow-unresolved", "--data-dir", data, "-f", "-")
	c.Stdin = strings.NewReader(objects)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	return nil
}

// service starts a workload of the mesh.
func (t *troupe) service(name string, flags ...string) error {
	args := append([]string{"run", "--data-dir", t.data, "--service", name, "--port", "8080/http"}, flags...)
	if _, err := t.w.start(t.w.options.tulle, append(args, "--", os.Args[0], "-be", "play", ":8080", t.socket(name))...); err != nil {
		return err
	}
	t.services = append(t.services, name)
	return standing(t.socket(name))
}

// client starts the client as a workload of the mesh.
func (t *troupe) client(after string) error {
	t.asker = "client"
	args := []string{"run", "--data-dir", t.data, "--service", "client", "--wait-for", after, "--", os.Args[0], "-be", "play", "127.0.0.1:0", t.socket("client")}
	if _, err := t.w.start(t.w.options.tulle, args...); err != nil {
		return err
	}
	return standing(t.socket("client"))
}

// standing waits until somebody listens on a unix socket.
func standing(socket string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
	}
	return errors.New(filepath.Base(socket) + " does not listen after 20 s")
}

// envoy starts Envoy with listeners and clusters, and the client on the machine itself.
func (t *troupe) envoy(listeners, clusters string) error {
	file := t.w.file("envoy.yaml", "static_resources:\n  listeners:\n"+listeners+"  clusters:\n"+clusters)
	if _, err := t.w.start(t.w.options.envoy, "-c", file, "--concurrency", "2", "--log-level", "error", "--use-dynamic-base-id"); err != nil {
		return err
	}
	if err := waitFor(strings.TrimSuffix(strings.TrimPrefix(t.url, "http://"), "/")); err != nil {
		return err
	}
	return t.caller()
}

// envoyListener is a listener whose requests go to one cluster. action is more of its route action, filter one more filter.
func envoyListener(at, cluster, action, filter string) string {
	host, port, _ := net.SplitHostPort(at) // our own
	return fmt.Sprintf(`  - name: %[3]s
    address: {socket_address: {address: %[1]s, port_value: %[2]s}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %[3]s
          route_config: {name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: %[3]s%[4]s}}]}]}
          http_filters:
%[5]s          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`, host, port, cluster, action, filter)
}

// envoyBack is a cluster of one endpoint. more is more of it.
func envoyBack(at, name, more string) string {
	host, port, _ := net.SplitHostPort(at) // our own
	if more != "" {
		more = "    " + more + "\n"
	}
	return fmt.Sprintf("  - name: %[3]s\n    type: STATIC\n    connect_timeout: 5s\n%[4]s    load_assignment: {cluster_name: %[3]s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[1]s, port_value: %[2]s}}}}]}]}\n", host, port, name, more)
}
