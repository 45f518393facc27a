package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
)

// idleConnections is how many connections without a request are kept open where their memory is measured.
const idleConnections = 10000

// footprint is the memory of processes, in bytes.
type footprint struct{ anon, pss, rss float64 }

// memories measures what an idle proxy keeps, what each idle connection adds, and what idle sidecars keep with six on the
// machine.
func memories(r *results) error {
	o := r.options
	for _, s := range allSubjects(o) {
		for _, t := range []topology{plain, oneHop} {
			_, err := with(o, s, load.HTTP1, t, func(w *world, run *running) error {
				time.Sleep(time.Second) // idle means idle
				empty, err := memoryOf(run.pids)
				if err != nil {
					return err
				}
				held, err := hold(plan(o, load.HTTP1, t, run, idleConnections))
				if err != nil {
					return err
				}
				defer held.release()
				time.Sleep(2 * time.Second)
				full, err := memoryOf(run.pids)
				if err != nil {
					return err
				}
				r.memory = append(r.memory, memoryRow{s.name, t, empty, (full.anon - empty.anon) / idleConnections})
				fmt.Fprintf(os.Stderr, "memory   %-15s %-16s idle %.1f MB, %.0f B per idle connection\n", t, s.name, empty.anon/1e6, (full.anon-empty.anon)/idleConnections)
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, t, err)
			}
		}
	}
	return r.sidecars()
}

type memoryRow struct {
	subject  string
	topology topology
	empty    footprint
	each     float64 // bytes per idle connection
}

// sidecars measures proxies and supervisors of six idle workloads.
func (r *results) sidecars() error {
	if !wanted(r.options.subjects, "Tulle") {
		return nil
	}
	w, err := newWorld(r.options)
	if err != nil {
		return err
	}
	defer w.close()
	data, err := w.up()
	if err != nil {
		return err
	}
	for i := range 6 {
		if _, err := w.start(r.options.tulle, "run", "--data-dir", data, "--service", fmt.Sprintf("idle-%d", i), "--port", "8080", "--", "sleep", "60"); err != nil {
			return err
		}
	}
	time.Sleep(10 * time.Second)
	for _, p := range w.procs[1:] {
		children := proxiesOf(p.Process.Pid)
		if len(children) != 1 {
			return fmt.Errorf("supervisor %d has %d proxies", p.Process.Pid, len(children))
		}
		proxy, err := memoryOf(children)
		if err != nil {
			return err
		}
		supervisor, err := memoryOf([]int{p.Process.Pid})
		if err != nil {
			return err
		}
		r.sidecar = append(r.sidecar, [2]footprint{proxy, supervisor})
	}
	return nil
}

// held is a load generator that keeps connections open.
type held struct {
	cmd *exec.Cmd
	in  io.Closer
}

func (h *held) release() {
	_ = h.in.Close() // it ends
	_ = h.cmd.Wait()
}

// hold opens p.Connections connections with one request each, and keeps them.
func hold(p load.Plan) (*held, error) {
	p.Hold = true
	p.For = 2 * time.Minute
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	c := exec.Command(os.Args[0], "-be", "load", string(text))
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return nil, err
	}
	h := &held{c, in}
	if _, err := io.ReadFull(out, make([]byte, len(load.Held))); err != nil {
		h.release()
		return nil, fmt.Errorf("%d idle connections: %w", p.Connections, err)
	}
	return h, nil
}

// memoryOf adds up what processes and their descendants have.
func memoryOf(pids []int) (f footprint, err error) {
	all := slices.Clone(pids)
	for _, pid := range pids {
		all = append(all, children(pid)...)
	}
	for _, pid := range all {
		f.anon += field(pid, "status", "RssAnon:", &err)
		f.rss += field(pid, "status", "VmRSS:", &err)
		f.pss += field(pid, "smaps_rollup", "Pss:", &err)
	}
	return f, err
}

// field reads kilobytes and answers bytes.
func field(pid int, file, key string, err *error) float64 {
	b, e := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if e != nil {
		*err = e
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == key {
			n, _ := strconv.ParseFloat(string(f[1]), 64) // the kernel writes numbers
			return n * 1024
		}
	}
	return 0
}
