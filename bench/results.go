package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
)

// results is what was measured, and how it is told.
type results struct {
	options    options
	begun      time.Time
	cost       map[key][]float64 // µs of CPU per request or message; TCP: per MB
	throughput map[key][]float64 // per second; TCP: KB
	p50, p99   map[key][]float64 // µs
	shakes     map[string]map[string][]float64
	memory     []memoryRow
	sidecar    [][2]footprint
	stages     []stage
	soaked     []footprint // each minute
	features   map[string][]featureCost
	switched   map[string][]sidecarPair
	old        string // RESULTS.md as it was
	chain      []chainRow
	overload   []overloadRow
	oracle     []oracleRow
}

// section is a part of RESULTS.md that can be written anew alone: its heading, and its table if it was measured.
type section struct {
	part, heading string
	measured      bool
	table         func(*bytes.Buffer)
}

func (r *results) sections() []section {
	return []section{{"features", featureHeading, r.features != nil, r.featureTable},
		{"sidecars", sidecarHeading, r.switched != nil, r.sidecarTable},
		{"chain", chainHeading, r.chain != nil, r.chainTable},
		{"overload", overloadHeading, r.overload != nil, r.overloadTable},
		{"oracle", oracleHeading, r.oracle != nil, r.oracleTable}}
}

// write writes RESULTS.md and the plots.
func (r *results) write() error {
	file := filepath.Join(r.options.out, "RESULTS.md")
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.old = string(old)
	if r.alone() {
		return os.WriteFile(file, []byte(r.renew(string(old))), 0o644)
	}
	var b bytes.Buffer
	r.head(&b)
	r.goalTable(&b)
	if r.cost != nil {
		if err := r.costTables(&b); err != nil {
			return err
		}
	}
	if r.p50 != nil {
		r.latencyTables(&b)
	}
	if r.shakes != nil {
		r.handshakeTable(&b)
	}
	if r.memory != nil {
		r.memoryTables(&b)
	}
	if r.stages != nil {
		r.stageTable(&b)
	}
	if r.soaked != nil {
		fmt.Fprintf(&b, "\n## Memory under churn\n\nRequests on mTLS connections that stay, that are new for each request, and 500 that come and go.\n\n| minute | RssAnon MB | PSS MB |\n|---:|---:|---:|\n")
		for i, f := range r.soaked {
			fmt.Fprintf(&b, "| %d | %.1f | %.1f |\n", i+1, f.anon/1e6, f.pss/1e6)
		}
	}
	for _, s := range r.sections() { // what was not measured now stays as it was
		if _, text, _ := cut(string(old), s.heading); !s.measured {
			b.WriteString(text)
		}
	}
	return os.WriteFile(file, []byte(r.renew(b.String())), 0o644)
}

// alone reports whether nothing else is measured than what can be written anew alone.
func (r *results) alone() bool {
	for _, p := range r.options.parts {
		if !slices.ContainsFunc(r.sections(), func(s section) bool { return s.part == p }) {
			return false
		}
	}
	return len(r.options.parts) > 0
}

// renew puts the tables that were measured into a text, each in place of the one that is there, or at the end.
func (r *results) renew(text string) string {
	for _, s := range r.sections() {
		if !s.measured {
			continue
		}
		before, _, after := cut(text, s.heading)
		var b bytes.Buffer
		s.table(&b)
		text = before + b.String() + after
	}
	return text
}

// oldRow answers the line of a table that begins with name, as it was.
func (r *results) oldRow(name string) string {
	_, after, ok := strings.Cut(r.old, "\n| "+name+" |")
	line, _, _ := strings.Cut(after, "\n")
	if !ok {
		return ""
	}
	return "| " + name + " |" + line + "\n"
}

// cut answers what is before a section, the section and what is after it. If it is not there all is before it.
func cut(text, heading string) (before, section, after string) {
	i := strings.Index(text, heading)
	if i < 0 {
		return text, "", ""
	}
	end := len(text)
	if j := strings.Index(text[i+len(heading):], "\n## "); j >= 0 {
		end = i + len(heading) + j
	}
	return text[:i], text[i:end], text[end:]
}

func (r *results) head(b *bytes.Buffer) {
	o := r.options
	fmt.Fprintf(b, "# What a proxy costs\n\nWritten by `make bench` on %s: %d cores, %s, %s. %d rounds of %s for each number, the median counts; every\nsubject had its turn in every round.",
		r.begun.Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), kernel(), o.rounds, o.duration)
	fmt.Fprintf(b, " Absolute times mean nothing: they differ from machine to machine and from run to run. Ratios\nwithin this run are what counts.\n\n")
	fmt.Fprintf(b, "| subject | version | configuration |\n|---|---|---|\n")
	fmt.Fprintf(b, "| Tulle | this tree | one proxy: `tulle proxy --bootstrap`, Envoy's file; two: the sidecars of two workloads (`tulle run`). Metrics on |\n")
	fmt.Fprintf(b, "| HAProxy | %s | `mode http` (TCP: `mode tcp`), nbthread 2, http-reuse always |\n", version("haproxy", "-v"))
	fmt.Fprintf(b, "| nginx | %s | 2 workers, keep-alive; HTTP/2 towards the server through `grpc_pass` |\n", version("nginx", "-v"))
	if o.envoy != "" {
		fmt.Fprintf(b, "| Envoy | %s | `--concurrency 2`, the same file as Tulle |\n", version(o.envoy, "--version"))
	} else {
		fmt.Fprintf(b, "| Envoy | not measured | %s |\n", o.noEnvoy)
	}
	fmt.Fprintf(b, "| Go ReverseProxy | %s | `httputil.ReverseProxy`; TCP: `io.Copy` |\n\n", runtime.Version())
	fmt.Fprintf(b, "Answers and messages have 100 bytes. HTTP/2 and gRPC carry 8 requests at once on a connection; a gRPC stream 8 messages.\nTLS is 1.3 with a P-256 certificate on both sides.\n")
}

func kernel() string {
	out, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return runtime.GOOS
	}
	return strings.TrimSpace(string(out))
}

func version(program, flag string) string {
	out, err := exec.Command(program, flag).CombinedOutput()
	if err != nil {
		return "?"
	}
	for f := range strings.FieldsSeq(strings.NewReplacer("/", " ", "-", " ").Replace(string(out))) {
		if len(f) > 2 && f[0] >= '0' && f[0] <= '9' && strings.Contains(f, ".") {
			return f
		}
	}
	return "?"
}

// names answers the subjects in the order in which they are told.
func (r *results) names() []string {
	var out []string
	for _, s := range allSubjects(r.options) {
		out = append(out, s.name)
	}
	return out
}

func (r *results) costTables(b *bytes.Buffer) error {
	for _, t := range topologies {
		var plots []series
		for _, k := range kinds {
			if !r.measured(t, k) {
				continue
			}
			unit := "CPU µs per request"
			switch k {
			case load.TCP:
				unit = "CPU µs per MB"
			case load.GRPCStream:
				unit = "CPU µs per message"
			case load.Connects:
				unit = "CPU µs per connection"
			}
			fmt.Fprintf(b, "\n### %s, %s: %s\n\n| |", t, k, unit)
			numbers := r.options.numbers(k, t)
			for _, c := range numbers {
				fmt.Fprintf(b, " %d conn. | × | per second |", c)
			}
			fmt.Fprintf(b, "\n|---%s|\n", strings.Repeat("|---:|---:|---:", len(numbers)))
			for _, name := range r.names() {
				r.costRow(b, t, k, name)
			}
			fmt.Fprintf(b, "\n× is the ratio to %s.\n", base(t))
			plots = append(plots, r.series(t, k)...)
		}
		if len(plots) > 0 {
			file := "cost-" + strings.ReplaceAll(strings.ToLower(string(t)), " ", "-") + ".svg"
			fmt.Fprintf(b, "\n![CPU of %s relative to %s](%s)\n", t, base(t), file)
			title := fmt.Sprintf("%s: CPU per request relative to %s, %d connections", t, base(t), r.plotted())
			if err := os.WriteFile(filepath.Join(r.options.out, file), bars(title, r.names(), plots), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *results) measured(t topology, k load.Kind) bool {
	for at := range r.cost {
		if at.topology == t && at.kind == k {
			return true
		}
	}
	return false
}

func (r *results) costRow(b *bytes.Buffer, t topology, k load.Kind, name string) {
	fmt.Fprintf(b, "| %s |", name)
	for _, c := range r.options.numbers(k, t) {
		mine, ok := r.cost[key{t, k, c, name}]
		if !ok {
			fmt.Fprint(b, " – | – | – |")
			continue
		}
		ratio := "–"
		if of, ok := r.cost[key{t, k, c, base(t)}]; ok {
			ratio = fmt.Sprintf("%.2f", median(mine)/median(of))
		}
		rate := median(r.throughput[key{t, k, c, name}])
		if k == load.TCP {
			fmt.Fprintf(b, " %.0f | %s | %.0f MB |", median(mine), ratio, rate/1024)
		} else {
			fmt.Fprintf(b, " %.1f | %s | %.0f |", median(mine), ratio, rate)
		}
	}
	fmt.Fprintln(b)
}

// plotted is the number of connections that the plots show: the middle one.
func (r *results) plotted() int { return r.options.connections[len(r.options.connections)/2] }

// series answers the bars of one kind of load.
func (r *results) series(t topology, k load.Kind) []series {
	of := r.cost[key{t, k, r.plotted(), base(t)}]
	if of == nil {
		return nil
	}
	s := series{label: string(k)}
	for _, name := range r.names() {
		v := r.cost[key{t, k, r.plotted(), name}]
		if v == nil {
			s.values = append(s.values, 0)
			continue
		}
		s.values = append(s.values, median(v)/median(of))
	}
	return []series{s}
}

func (r *results) latencyTables(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Latency at %.0f requests a second, open loop\n\nMicroseconds from when a request was due to when it was answered.\n", r.options.rate)
	for _, t := range topologies {
		var list []load.Kind
		for _, k := range kinds {
			if r.p50[key{t, k, 1, "Tulle"}] != nil || r.p50[key{t, k, 1, "HAProxy"}] != nil {
				list = append(list, k)
			}
		}
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n### %s\n\n| |", t)
		for _, k := range list {
			fmt.Fprintf(b, " %s, 1 conn. p50 / p99 | 32 conn. p50 / p99 |", k)
		}
		fmt.Fprintf(b, "\n|---%s|\n", strings.Repeat("|---:|---:", len(list)))
		for _, name := range append([]string{"no proxy"}, r.names()...) {
			fmt.Fprintf(b, "| %s |", name)
			for _, k := range list {
				for _, c := range []int{1, 32} {
					at := key{t, k, c, name}
					if r.p50[at] == nil {
						fmt.Fprint(b, " – |")
						continue
					}
					fmt.Fprintf(b, " %.0f / %.0f |", median(r.p50[at]), median(r.p99[at]))
				}
			}
			fmt.Fprintln(b)
		}
	}
}

func (r *results) handshakeTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## New mTLS connections per second of the proxy's CPU\n\nFull handshakes, TLS 1.3, P-256 certificates on both sides, one request each.\n\n| | X25519 | × nginx | X25519MLKEM768 | × its own X25519 |\n|---|---:|---:|---:|---:|\n")
	for _, name := range r.names() {
		plain, hybrid := r.shakes["X25519"][name], r.shakes["X25519MLKEM768"][name]
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", name, number(plain), ratio(plain, r.shakes["X25519"]["nginx"]), number(hybrid), ratio(hybrid, plain))
	}
}

func number(v []float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.0f", median(v))
}

func ratio(v, of []float64) string {
	if v == nil || of == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(v)/median(of))
}

func (r *results) memoryTables(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Memory\n\nPrivate memory (RssAnon) and PSS of a proxy that has just started, and what each of %d idle connections adds, after one\nrequest on each.\n\n| | topology | RssAnon MB | PSS MB | VmRSS MB | bytes per idle connection |\n|---|---|---:|---:|---:|---:|\n", idleConnections)
	for _, m := range r.memory {
		fmt.Fprintf(b, "| %s | %s | %.1f | %.1f | %.1f | %.0f |\n", m.subject, m.topology, m.empty.anon/1e6, m.empty.pss/1e6, m.empty.rss/1e6, m.each)
	}
	if len(r.sidecar) == 0 {
		return
	}
	fmt.Fprintf(b, "\nSix idle sidecars on the machine, each a proxy and its supervisor:\n\n| proxy RssAnon MB | PSS MB | VmRSS MB | supervisor RssAnon MB | PSS MB | VmRSS MB |\n|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range r.sidecar {
		fmt.Fprintf(b, "| %.1f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", s[0].anon/1e6, s[0].pss/1e6, s[0].rss/1e6, s[1].anon/1e6, s[1].pss/1e6, s[1].rss/1e6)
	}
}

func (r *results) stageTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Where Tulle's time goes\n\nCPU profile of one plain HTTP/1.1 hop, 32 connections, by stage.\n\n| stage | share |\n|---|---:|\n")
	for _, s := range r.stages {
		fmt.Fprintf(b, "| %s | %.1f %% |\n", s.name, s.share*100)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
