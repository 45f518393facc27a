package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
)

// startTulle runs one proxy from the very file that Envoy runs from, and two as what they are in a mesh: the sidecars
// of two workloads.
func startTulle(w *world, k load.Kind, t topology, backend string) (*running, error) {
	if t == twoHops {
		return w.mesh(k)
	}
	front := freePort()
	file := w.bootstrap("tulle", k, front, backend, t == oneHop, false)
	if k == load.HTTP1 && t == plain { // for the profile; an idle admin costs nothing
		w.admin = freePort()
		host, port, _ := net.SplitHostPort(w.admin)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		w.file("tulle.yaml", fmt.Sprintf("admin: {address: {socket_address: {address: %s, port_value: %s}}}\n%s", host, port, text))
	}
	pid, err := w.start(w.options.tulle, "proxy", "--bootstrap", file, "--concurrency", "2")
	r := &running{address: front, pids: []int{pid}}
	if t == oneHop {
		r.serverName = "bench"
	}
	return r, err
}

// up starts a control plane of the world's own and answers its data folder.
func (w *world) up() (string, error) {
	data := filepath.Join(w.dir, "data")
	if _, err := w.start(w.options.tulle, "up", "--data-dir", data, "--http-listen", freePort(), "--grpc-listen", freePort()); err != nil {
		return "", err
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if exec.Command(w.options.tulle, "status", "--data-dir", data).Run() == nil {
			return data, nil
		}
	}
	return "", fmt.Errorf("no control plane after 15 s")
}

// proxies answers the proxy child of each `tulle run` of this world: its CPU time is the proxy's cost.
func (w *world) proxies() []int {
	var out []int
	for _, p := range w.procs {
		out = append(out, proxiesOf(p.Process.Pid)...)
	}
	return out
}

func proxiesOf(supervisor int) []int {
	var out []int
	for _, c := range children(supervisor) {
		if strings.Contains(commandLine(c), "proxy --supervised") {
			out = append(out, c)
		}
	}
	return out
}

// mesh runs the server as one workload and the load generator as another, which calls it by its name.
func (w *world) mesh(k load.Kind) (*running, error) {
	data, err := w.up()
	if err != nil {
		return nil, err
	}
	port := "8080/http"
	switch k {
	case load.GRPCUnary, load.GRPCStream:
		port = "8080/grpc"
	case load.TCP:
		port = "8080/tcp"
	}
	args := []string{"run", "--data-dir", data, "--service", "echo", "--port", port, "--"}
	if _, err := w.start(w.options.tulle, append(args, w.backendCommand(k, "127.0.0.1:8080")...)...); err != nil {
		return nil, err
	}
	// One caller for the whole measurement: it generates load whenever it is told to.
	ask, answer, plan := filepath.Join(w.dir, "ask"), filepath.Join(w.dir, "answer"), filepath.Join(w.dir, "plan")
	for _, p := range []string{ask, answer} {
		if out, err := exec.Command("mkfifo", p).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("mkfifo: %s", out)
		}
	}
	script := `while read -r go < "$0"; do "$3" -be load "$(cat "$2")" > "$1" 2>&1; done`
	if _, err := w.start(w.options.tulle, "run", "--data-dir", data, "--service", "load", "--wait-for", "echo", "--", "sh", "-c", script, ask, answer, plan, os.Args[0]); err != nil {
		return nil, err
	}
	for end := time.Now().Add(20 * time.Second); len(w.proxies()) < 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, fmt.Errorf("the two proxies do not run after 20 s")
		}
	}
	inside := func(args ...string) ([]byte, error) {
		w.file("plan", args[len(args)-1])
		return exec.Command("sh", "-c", `echo go > "$0"; cat "$1"`, ask, answer).Output()
	}
	return &running{address: "echo:8080", host: "echo:8080", pids: w.proxies(), inside: inside}, nil
}
