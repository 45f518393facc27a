package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// up starts a control plane of the world's own and answers its data folder.
func (w *world) up(o options) (string, error) {
	data := filepath.Join(w.dir, "data")
	if _, err := w.start(o.tulle, "up", "--data-dir", data, "--http-listen", freePort(), "--grpc-listen", freePort()); err != nil {
		return "", err
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if exec.Command(o.tulle, "status", "--data-dir", data).Run() == nil {
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

// echo runs the backend as a workload.
func (w *world) echo(o options, data string, more ...string) error {
	args := append([]string{"run", "--data-dir", data, "--service", "echo", "--port", "8080"}, more...)
	_, err := w.start(o.tulle, append(args, "--", "nginx", "-c", w.backendConf("127.0.0.1:8080"))...)
	return err
}

func tulleHop(o options, w *world) (running, error) {
	data, err := w.up(o)
	if err != nil {
		return running{}, err
	}
	addr := freePort()
	_, port, _ := strings.Cut(addr, ":")
	if err := w.echo(o, data, "--publish", "127.0.0.1:"+port+"=8080"); err != nil {
		return running{}, err
	}
	if err := waitFor(addr); err != nil {
		return running{}, err
	}
	time.Sleep(500 * time.Millisecond) // the program's own start
	return running{url: "http://" + addr + "/", pids: w.proxies()}, nil
}

func tullePair(o options, w *world) (running, error) {
	data, err := w.up(o)
	if err != nil {
		return running{}, err
	}
	if err := w.echo(o, data); err != nil {
		return running{}, err
	}
	// One caller for the whole measurement: it runs wrk whenever it is told to.
	ask, tell := filepath.Join(w.dir, "ask"), filepath.Join(w.dir, "answer")
	for _, p := range []string{ask, tell} {
		if out, err := exec.Command("mkfifo", p).CombinedOutput(); err != nil {
			return running{}, fmt.Errorf("mkfifo: %s", out)
		}
	}
	script := `while read -r args < "$0"; do wrk $args > "$1" 2>&1; done`
	if _, err := w.start(o.tulle, "run", "--data-dir", data, "--service", "load", "--wait-for", "echo", "--", "sh", "-c", script, ask, tell); err != nil {
		return running{}, err
	}
	wrk := func(args ...string) *exec.Cmd {
		return exec.Command("sh", "-c", `echo "$2" > "$0"; cat "$1"`, ask, tell, strings.Join(args, " "))
	}
	end := time.Now().Add(20 * time.Second)
	for len(w.proxies()) < 2 {
		if time.Now().After(end) {
			return running{}, fmt.Errorf("the two proxies do not run after 20 s")
		}
		time.Sleep(50 * time.Millisecond)
	}
	return running{url: "http://echo:8080/", pids: w.proxies(), wrk: wrk}, nil
}

// memory prints what idle sidecars keep, with six on the machine.
func memory(o options, out io.Writer) error {
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.close()
	data, err := w.up(o)
	if err != nil {
		return err
	}
	for i := range 6 {
		if _, err := w.start(o.tulle, "run", "--data-dir", data, "--service", fmt.Sprintf("idle-%d", i), "--port", "8080", "--", "sleep", "60"); err != nil {
			return err
		}
	}
	time.Sleep(10 * time.Second) // idle means idle
	fmt.Fprintf(out, "\n### Memory of an idle sidecar, six on the machine\n\n| process | RssAnon MB | PSS MB | VmRSS MB |\n|---|---:|---:|---:|\n")
	for _, p := range w.procs[1:] {
		for _, pid := range append(proxiesOf(p.Process.Pid), p.Process.Pid) {
			name := "supervisor"
			if pid != p.Process.Pid {
				name = "proxy"
			}
			anon, rss, pss, err := memoryOf(pid)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "| %s | %.1f | %.1f | %.1f |\n", name, anon, pss, rss)
		}
	}
	return nil
}

// memoryOf answers megabytes.
func memoryOf(pid int) (anon, rss, pss float64, err error) {
	read := func(file, key string) float64 {
		b, e := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if e != nil {
			err = e
		}
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == key {
				n, _ := strconv.ParseFloat(string(f[1]), 64) // the kernel writes numbers
				return n / 1024
			}
		}
		return 0
	}
	return read("status", "RssAnon:"), read("status", "VmRSS:"), read("smaps_rollup", "Pss:"), err
}
