// Command check passes every test of the repository, or says which did not pass: go run ./tools/check. It does its own
// set-up: as root on Debian it installs the packages that the end-to-end tests need; elsewhere it names what is
// missing, and the tests that need it fail. It stops at the first step that fails.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// step is one part of the check.
type step struct {
	name  string
	run   func() error
	asked bool // run only when -only names it
}

// besides are steps that only compute, in time of their own, beside one that mostly waits: where both are run, the former run
// beside the latter with what is left of the processors.
var besides = map[string]string{"e2e": "sim,fuzz", "e2e-user": "spire-server"}

// beside starts steps at the lowest priority and answers what waits for them and tells what they have said.
func beside(steps, inputs string) (wait func() error) {
	failed := func(err error) func() error { return func() error { return err } }
	self, err := os.Executable()
	if err != nil {
		return failed(err)
	}
	var said bytes.Buffer
	c := exec.Command("nice", "-n", "19", self, "-only", steps, "-fuzz", inputs)
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return failed(err)
	}
	return func() error {
		err := c.Wait()
		_, _ = os.Stdout.Write(said.Bytes()) // the exit code counts
		return err
	}
}

// meanwhile answers the steps that run beside another that is chosen too, with that one's name.
func meanwhile(chosen func(name string) bool) map[string]string {
	apart := map[string]string{}
	for waits, steps := range besides {
		list := strings.Split(steps, ",")
		if !chosen(waits) || slices.ContainsFunc(list, func(s string) bool { return !chosen(s) }) {
			continue
		}
		for _, s := range list {
			apart[s] = waits
		}
	}
	return apart
}

// runBeside runs a step, and beside it those that are apart for it.
func runBeside(s step, apart map[string]string, inputs string) error {
	with := besides[s.name]
	if with == "" || apart[strings.Split(with, ",")[0]] == "" {
		return s.run()
	}
	others := beside(with, inputs)
	err := s.run()
	if err2 := others(); err2 != nil {
		err = errors.Join(err, fmt.Errorf("beside it, %s: %w", with, err2))
	}
	return err
}

func main() {
	only := flag.String("only", "", "run only the steps with these names, separated by commas")
	// A number of inputs, not a time: when a time is over, go test sometimes calls that a failure.
	fuzz := flag.String("fuzz", "5000x", "how many inputs each fuzz test tries (5000x), or for how long (30s)")
	flag.Parse()
	steps := allSteps(*fuzz)
	chosen := func(name string) bool { return *only == "" || slices.Contains(strings.Split(*only, ","), name) }
	apart := meanwhile(chosen)
	for _, s := range steps {
		if !chosen(s.name) || s.asked && *only == "" || apart[s.name] != "" {
			continue
		}
		start := time.Now()
		fmt.Printf("== %s\n", s.name)
		if err := runBeside(s, apart, *fuzz); err != nil {
			fmt.Fprintf(os.Stderr, "== %s FAILED after %s: %v\n", s.name, time.Since(start).Round(time.Second), err)
			os.Exit(1)
		}
		fmt.Printf("== %s ok (%s)\n", s.name, time.Since(start).Round(time.Second))
	}
}

// allSteps answers the steps, in their order.
func allSteps(fuzz string) []step {
	return []step{
		{name: "setup", run: setup},
		{name: "format", run: format},
		{name: "vet", run: vet},
		{name: "staticcheck", run: func() error { return command("go", "tool", "staticcheck", "./...") }},
		{name: "build", run: build},
		{name: "test", run: func() error { return command("go", "test", "-timeout", "10m", packages()) }},
		{name: "sim", run: func() error { return command("go", "run", "./tools/sim", "-seeds", "2500", "-cuts") }},
		{name: "fuzz", run: func() error { return fuzzAll(fuzz) }},
		{name: "conformance", run: conformance},
		{name: "e2e", run: endToEnd},
		{name: "e2e-user", run: endToEndUser},
		{name: "security", run: hostile},
		{name: "spire-server", run: spireServer},
		{name: "spire", run: withSPIRE},
		{name: "reproducible", run: reproducible},
		{name: "vault", run: withVault, asked: true},
	}
}

// packages is what `go test` runs in the step "test": everything; the end-to-end tests have the build tag e2e.
func packages() string { return "./..." }

// needed are the programs of the end-to-end tests and the Debian packages that bring them.
var needed = []struct{ program, pkg string }{
	{"curl", "curl"}, {"nc", "netcat-openbsd"}, {"redis-server", "redis-server"}, {"redis-cli", "redis-tools"},
	{"mariadbd", "mariadb-server"}, {"mariadb", "mariadb-client"}, {"psql", "postgresql-client"}, {"pg_lsclusters", "postgresql"},
	{"nginx", "nginx-light"}, {"haproxy", "haproxy"}, {"etcd", "etcd-server"}, {"setpriv", "util-linux"}, {"ip", "iproute2"}, {"getent", "libc-bin"},
	{"gcc", "gcc"}, {"/usr/include/stdio.h", "libc6-dev"}, // for SPIRE's SQLite
}

func setup() error {
	var missing []string
	for _, n := range needed {
		if !installed(n.program) {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		fmt.Printf("missing, and not installed because that needs root on Debian: %s\nthe tests that need them will fail\n", strings.Join(missing, " "))
		return nil
	}
	os.Setenv("DEBIAN_FRONTEND", "noninteractive")
	// Nothing that is installed here needs to run as a service of the machine.
	if !exists("/usr/sbin/policy-rc.d") {
		if err := os.WriteFile("/usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove("/usr/sbin/policy-rc.d")
	}
	if err := command("apt-get", "-qq", "update"); err != nil {
		return err
	}
	return command("apt-get", append([]string{"-qq", "-y", "--no-install-recommends", "install"}, missing...)...)
}

// installed looks also where Debian keeps what only root calls.
func installed(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	return filepath.IsAbs(program) && exists(program) || exists("/usr/sbin/"+program)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func format() error {
	out, err := exec.Command("gofmt", "-l", ".").Output()
	if err != nil {
		return err
	}
	if len(out) > 0 {
		return fmt.Errorf("not formatted, run gofmt -w on:\n%s", out)
	}
	return nil
}

func vet() error {
	tool, err := exec.Command("go", "tool", "-n", "govet").Output()
	if err != nil {
		return err
	}
	if err := command("go", "vet", "-vettool="+strings.TrimSpace(string(tool)), "./..."); err != nil {
		return err
	}
	return command("go", "vet", "-vettool="+strings.TrimSpace(string(tool)), "-tags", "e2e,conformance,spire,vault", "./test/...")
}

// programs are real applications and suites at pinned versions: for each module in test/tools, its packages and the names
// that their programs get in bin.
var programs = map[string]map[string]string{
	"httpbin":   {"go-httpbin": "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"},
	"podinfo":   {"podinfo": "github.com/stefanprodan/podinfo/cmd/podinfo"},
	"stepca":    {"step-ca": "github.com/smallstep/certificates/cmd/step-ca"},
	"ratelimit": {"ratelimit": "github.com/envoyproxy/ratelimit/src/service_cmd"},
	"extauthz":  {"extauthz": "istio.io/istio/samples/extauthz/cmd/extauthz"},
	"opa":       {"opa": "github.com/open-policy-agent/opa"},
	"h2spec":    {"h2spec": "github.com/summerwind/h2spec/cmd/h2spec", "h2specd": "github.com/summerwind/h2spec/cmd/h2specd"},
	"interop":   {"interop-client": "google.golang.org/grpc/interop/client", "interop-server": "google.golang.org/grpc/interop/server"},
	"connect":   {"connectconformance": "connectrpc.com/conformance/cmd/connectconformance", "referenceserver": "connectrpc.com/conformance/cmd/referenceserver"},
	"websocket": {"websocket": "."},
}

// build makes what the black-box tests run: the binary, and the programs.
func build() error {
	if err := command("go", "build", "-trimpath", "-o", "bin/tulle", "./cmd/tulle"); err != nil {
		return err
	}
	for group, all := range programs {
		for name, pkg := range all {
			c := exec.Command("go", "build", "-o", "../../../bin/"+name, pkg)
			c.Dir, c.Stdout, c.Stderr = filepath.Join("test/tools", group), os.Stdout, os.Stderr
			if group == "stepca" { // with cgo it wants the headers of a smart card library
				c.Env = append(os.Environ(), "CGO_ENABLED=0")
			}
			if err := c.Run(); err != nil {
				return fmt.Errorf("%s: %w", pkg, err)
			}
		}
	}
	return nil
}

// conformance points the suites of test/conformance at the binary, one after the other: some measure time.
func conformance() error {
	return command("go", "test", "-tags", "conformance", "-count=1", "-p", "1", "-timeout", "15m", "./test/conformance/...")
}

// spireServer builds a SPIRE server, which takes longer than everything else that is built: it has the clouds' libraries, and SQLite in
// C, which is not optimized here for that reason.
func spireServer() error {
	c := exec.Command("go", "build", "-o", "../../../bin/spire-server", "github.com/spiffe/spire/cmd/spire-server")
	c.Dir, c.Stdout, c.Stderr, c.Env = "test/tools/spire", os.Stdout, os.Stderr, append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O0")
	if err := c.Run(); err != nil {
		return fmt.Errorf("spire-server: %w", err)
	}
	return nil
}

// withSPIRE runs that server as the issuer of a mesh.
func withSPIRE() error {
	return command("go", "test", "-tags", "conformance,spire", "-count=1", "-timeout", "10m", "./test/conformance/spire")
}

// withVault builds a Vault, which takes longer than everything else together, and runs it as the issuer of a mesh.
func withVault() error {
	c := exec.Command("go", "build", "-trimpath", "-o", "../../../bin/vault", ".")
	c.Dir, c.Stdout, c.Stderr = "test/tools/vault", os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return command("go", "test", "-tags", "conformance,vault", "-count=1", "-timeout", "10m", "./test/conformance/vault")
}

// fuzzAll runs every fuzz test for a while.
func fuzzAll(each string) error {
	files, err := filepath.Glob("*/*_test.go")
	if err != nil {
		return err
	}
	for _, pattern := range []string{"*/*/*_test.go", "*/*/*/*_test.go"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	count := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			name, ok := strings.CutPrefix(line, "func Fuzz")
			if !ok {
				continue
			}
			name, _, _ = strings.Cut(name, "(")
			count++
			if err := command("go", "test", "-run", "^$", "-fuzz", "^Fuzz"+name+"$", "-fuzztime", each, "./"+filepath.Dir(file)); err != nil {
				return fmt.Errorf("%s: Fuzz%s: %w", file, name, err)
			}
		}
	}
	if count == 0 {
		return errors.New("no fuzz test was found")
	}
	fmt.Printf("%d fuzz tests passed\n", count)
	return nil
}

const e2eBinary = "bin/e2e.test"

func buildEndToEnd() error {
	return command("go", "test", "-c", "-tags", "e2e", "-o", e2eBinary, "./test/e2e")
}

func endToEnd() error {
	if err := buildEndToEnd(); err != nil {
		return err
	}
	return runEndToEnd()
}

// endToEndUser runs the same tests as an ordinary user. Root becomes one for that; who is one already has just run them.
func endToEndUser() error {
	if os.Getuid() != 0 {
		return nil
	}
	if err := buildEndToEnd(); err != nil {
		return err
	}
	// The user's own copy: it has to be able to read everything, whatever the modes of the checkout's parents are.
	dir, err := os.MkdirTemp("", "tulle-user-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := command("cp", "-a", "bin", dir); err != nil {
		return err
	}
	if err := command("chown", "-R", "65534:65534", dir); err != nil {
		return err
	}
	return runEndToEnd("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME="+dir, "TULLE_BIN="+filepath.Join(dir, "bin"))
}

// reproducible builds the binary twice, here and from a copy in another folder, and compares.
func reproducible() error {
	dir, err := os.MkdirTemp("", "tulle-again-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sources := filepath.Join(dir, "a", "copy")
	if err := os.MkdirAll(sources, 0o755); err != nil {
		return err
	}
	if err := command("sh", "-c", "tar -cf - --exclude=./bin --exclude=./.git . | tar -xf - -C "+sources); err != nil {
		return err
	}
	var made [2][]byte
	for i, from := range []string{".", sources} {
		to := filepath.Join(dir, fmt.Sprint("tulle", i))
		c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", to, "./cmd/tulle") // the copy has no repository
		c.Dir, c.Stdout, c.Stderr = from, os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return err
		}
		if made[i], err = os.ReadFile(to); err != nil {
			return err
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		return errors.New("the same sources in two folders give different binaries")
	}
	return nil
}

// hostile sends hostile input to a mesh, as whoever we are, and where that is root as an ordinary user as well.
func hostile() error {
	if err := command("go", "test", "-c", "-tags", "e2e", "-o", "bin/security.test", "./test/security"); err != nil {
		return err
	}
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	os.Setenv("TULLE_BIN", bin)
	if err := command("bin/security.test", "-test.timeout", "3m"); err != nil || os.Getuid() != 0 {
		return err
	}
	dir, err := os.MkdirTemp("", "tulle-user-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := command("cp", "bin/tulle", "bin/security.test", dir); err != nil {
		return err
	}
	if err := command("chown", "-R", "65534:65534", dir); err != nil {
		return err
	}
	return command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME="+dir, "TULLE_BIN="+dir, filepath.Join(dir, "security.test"), "-test.timeout", "3m")
}

func runEndToEnd(prefix ...string) error {
	bin, err := filepath.Abs(e2eBinary)
	if err != nil {
		return err
	}
	dir := "test/e2e"
	for _, p := range prefix {
		if d, ok := strings.CutPrefix(p, "TULLE_BIN="); ok {
			bin, dir = filepath.Join(d, "e2e.test"), d
		}
	}
	args := append(prefix, bin, "-test.v", "-test.timeout", "12m")
	if len(prefix) > 0 {
		args = append(args, "-test.skip", "^TestRoot") // they make machines, and have just run as root
	}
	c := exec.Command(args[0], args[1:]...)
	c.Dir, c.Stdout, c.Stderr = dir, os.Stdout, os.Stderr
	return c.Run()
}

func command(name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
