//go:build e2e

// Package security sends hostile input to a running mesh: real processes, one mesh for all, as root and as an ordinary user. Each
// input is a row of a table with the outcomes that are safe; after each a request of an honest client has to be answered, and at
// the end proxy and control plane hold no more goroutines, descriptors and memory than before. TULLE_BIN is as in test/e2e. Start reading at
// TestHostile.
package security

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

const patience = 20 * time.Second

// TestMain is also the main function of the program in the mesh.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, serveMain(os.Args[2]))
		os.Exit(1)
	}
	if len(os.Args) >= 2 && os.Args[1] == "inside" {
		if err := insideMain(len(os.Args) > 2); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	if len(os.Args) >= 6 && os.Args[1] == "egress" {
		if err := egressMain(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	go func() {
		runtime.LockOSThread() // children are ended with the thread that started them
		for f := range forks {
			f()
		}
	}()
	os.Exit(m.Run())
}

var forks = make(chan func())

// serveMain is the program: it says what it got, and how many requests it has seen at all.
func serveMain(port string) error {
	var seen atomic.Int64
	return http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20)) // what is broken off is the proxy's business
		if r.URL.Path == "/seen" {
			fmt.Fprint(w, seen.Load())
			return
		}
		if r.URL.Path != "/canary" {
			seen.Add(1)
		}
		w.Header().Set("X-Program", "yes")
		fmt.Fprintf(w, "%s %s %q\n", r.Method, r.RequestURI, r.Host)
		for name, values := range r.Header {
			fmt.Fprintf(w, "%s: %q\n", strings.ToLower(name), values)
		}
	}))
}

// mesh is the control plane, one workload that is published, and what is known of them.
type mesh struct {
	t                 *testing.T
	tulle, dir, data  string
	http, grpc        string
	published         string // the program's port, from outside
	peer              string // its proxy's port for other proxies
	metrics           string // its proxy's
	workload, service string
	proxy             int // process of the proxy
	client            *http.Client
}

func newMesh(t *testing.T, flags ...string) *mesh {
	dir, err := os.MkdirTemp("", "ts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &mesh{t: t, tulle: binary(t), dir: dir, data: filepath.Join(dir, "d"), http: freeAddress(t), grpc: freeAddress(t), published: freeAddress(t), service: "target"}
	m.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	up := m.start("up", "--data-dir", m.data, "--http-listen", m.http, "--grpc-listen", m.grpc)
	m.eventually("the control plane is ready", func() error {
		if text, _ := os.ReadFile(up); !strings.Contains(string(text), " ready after ") {
			return errors.New(string(text))
		}
		return nil
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.start(append(append([]string{"run", "--data-dir", m.data, "--service", m.service, "--port", "8080/http", "--publish", m.published + "=8080"}, flags...), "--", self, "serve", "8080")...)
	m.eventually("the program is there", m.learn)
	m.eventually("it answers", m.canary)
	return m
}

// learn finds out where everything is.
func (m *mesh) learn() error {
	out, err := m.cli("status", "-o", "json")
	if err != nil {
		return err
	}
	var s httpapi.Status
	if err := json.Unmarshal(out, &s); err != nil {
		return err
	}
	for _, w := range s.Workloads {
		if w.Service == m.service && w.State == "live" && w.Address != "" && w.Metrics != "" {
			m.peer, m.metrics, m.workload = w.Address, w.Metrics, w.Name
			return nil
		}
	}
	return fmt.Errorf("workloads: %+v", s.Workloads)
}

func (m *mesh) cli(args ...string) ([]byte, error) {
	c := exec.Command(m.tulle, append(args, "--data-dir", m.data)...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(m.dir, "s"))
	out, err := c.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("%v: %w: %s", args, err, e.Stderr)
	}
	return out, err
}

// start starts a process that ends with the test; it answers the file of its output.
func (m *mesh) start(args ...string) string {
	m.t.Helper()
	out := filepath.Join(m.dir, fmt.Sprintf("%s.%d", args[0], rand.Int()))
	f, err := os.Create(out)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	c := exec.Command(m.tulle, args...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(m.dir, "s"))
	c.Stdout, c.Stderr = f, f
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	failed := make(chan error)
	forks <- func() { failed <- c.Start() }
	if err := <-failed; err != nil {
		m.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = c.Wait(); close(done) }() // its output says how it ended
	m.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(patience):
			_ = c.Process.Kill()
			m.t.Errorf("tulle %s did not end", args[0])
		}
		text, _ := os.ReadFile(out)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
				m.t.Errorf("tulle %s: %s", args[0], line)
			}
		}
	})
	return out
}

// canary is a request of an honest client to the program, and one of an honest administrator to the control plane.
func (m *mesh) canary() error {
	res, err := m.client.Get("http://" + m.published + "/canary")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("X-Program") != "yes" {
		return fmt.Errorf("canary: %s", res.Status)
	}
	text, err := m.ask("/v1/status")
	if err == nil && !strings.Contains(string(text), `"`+m.service) {
		err = fmt.Errorf("the control plane does not know the workload: %s", text)
	}
	return err
}

// ask answers what the control plane's API says to an administrator.
func (m *mesh) ask(path string) ([]byte, error) {
	token, err := os.ReadFile(filepath.Join(m.data, "admin.token"))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+m.http+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the control plane: %s: %s", res.Status, text)
	}
	return text, err
}

// seen answers how many requests have reached the program, canaries aside.
func (m *mesh) seen() string {
	res, err := m.client.Get("http://" + m.published + "/seen")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

// holds answers what the workload's proxy and the control plane hold, by whose metric it is.
func (m *mesh) holds() (map[string]float64, error) {
	res, err := m.client.Get("http://" + m.metrics + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	proxy, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	control, err := m.ask("/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for who, text := range map[string][]byte{"proxy": proxy, "control plane": control} {
		held(who, text, out)
	}
	if len(out) != 2*len(slack) {
		return nil, fmt.Errorf("the metrics are incomplete: %v", out)
	}
	return out, nil
}

// slack is how much more may be held in the end, by metric.
var slack = map[string]float64{"go_goroutines": 4, "process_open_fds": 4, "tulle_process_private_memory_bytes": 24 << 20}

func held(who string, text []byte, out map[string]float64) {
	for line := range strings.Lines(string(text)) {
		var v float64
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, ok := slack[name]; ok {
			if _, err := fmt.Sscan(value, &v); err == nil {
				out[who+" "+name] = v
			}
		}
	}
}

func (m *mesh) eventually(what string, f func() error) {
	m.t.Helper()
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond) // poll
	}
}

func binary(t *testing.T) string {
	dir := os.Getenv("TULLE_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, "tulle"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: build it with 'go run ./tools/check -only build'", err)
	}
	return path
}

func freeAddress(t *testing.T) string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("found no free port")
	return ""
}
