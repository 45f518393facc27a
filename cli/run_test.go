package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// parseRun reads a command line of tulle run as far as the bootstrap.
func parseRun(t *testing.T, line string) (bootstrap.Bootstrap, error) {
	t.Helper()
	f := new(runFlags)
	cmd := newRunCommand()
	if err := cmd.Flags().Parse(strings.Fields(line)); err != nil {
		return bootstrap.Bootstrap{}, err
	}
	get := func(name string) string { return cmd.Flag(name).Value.String() }
	list := func(name string) []string { v, _ := cmd.Flags().GetStringArray(name); return v }
	f.service, f.namespace, f.version, f.account = get("service"), get("namespace"), get("version"), get("service-account")
	f.labels, f.ports, f.publish, f.forward = list("label"), list("port"), list("publish"), list("forward")
	f.ready, f.waitFor, f.exclude = get("ready"), list("wait-for"), list("exclude")
	f.resolvers = list("resolver")
	f.dataDir, f.token, f.control, f.address = "/data", get("token"), get("control"), get("address")
	f.metrics = get("metrics")
	f.workers, _ = cmd.Flags().GetInt("workers")
	return f.bootstrap("7f3kq")
}

func TestRunFlags(t *testing.T) {
	for line, want := range map[string]func(*bootstrap.Bootstrap) any{
		"--service reviews":                       func(b *bootstrap.Bootstrap) any { return b.Workload + " " + b.ServiceAccount + " " + b.Namespace },
		"--service r --version v2":                func(b *bootstrap.Bootstrap) any { return b.Workload },
		"--service r --version V2.1_x":            func(b *bootstrap.Bootstrap) any { return b.Workload + " " + b.Version },
		"--service r":                             func(b *bootstrap.Bootstrap) any { return b.Control },
		"--service r --control h --token t":       func(b *bootstrap.Bootstrap) any { return b.Control },
		"--service r --control [::1]:7 --token t": func(b *bootstrap.Bootstrap) any { return b.Control.Address },
		"--service r --port 80 --port web=8080:80/http --port g=9:90/grpc":          func(b *bootstrap.Bootstrap) any { return b.Ports },
		"--service r --port 80 --publish 8080 --publish :9090 --publish [::1]:7=80": func(b *bootstrap.Bootstrap) any { return b.Publish },
		"--service r --port 80 --port 81 --publish 1.2.3.4:81":                      func(b *bootstrap.Bootstrap) any { return b.Publish },
		"--service r --metrics 9100":                                                func(b *bootstrap.Bootstrap) any { return b.Metrics },
		"--service r --metrics [::]:9100":                                           func(b *bootstrap.Bootstrap) any { return b.Metrics },
		"--service r --forward 5432 --forward 6379=db.example:1234":                 func(b *bootstrap.Bootstrap) any { return b.Forward },
		"--service r --exclude 10.1.2.3/8 --exclude 5432 --exclude ::1":             func(b *bootstrap.Bootstrap) any { return len(b.Exclude) },
		"--service r --resolver 192.0.2.53 --resolver [::1]:5353 --resolver ::2":    func(b *bootstrap.Bootstrap) any { return b.ResolvConf },
		"--service r --label app.example/a.b_c=1":                                   func(b *bootstrap.Bootstrap) any { return b.Labels },
		"--service r --label a=b --label c=":                                        func(b *bootstrap.Bootstrap) any { return b.Labels },
		"--service r --wait-for cart --wait-for db.shop -- ls --port nope":          func(b *bootstrap.Bootstrap) any { return b.WaitFor },
	} {
		b, err := parseRun(t, line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if got, want := want(&b), runWants[line]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %#v\nwant %#v", line, got, want)
		}
	}
}

var runWants = map[string]any{
	"--service reviews":                       "reviews-7f3kq reviews default",
	"--service r --version v2":                "r-v2-7f3kq",
	"--service r --version V2.1_x":            "r-v2-1-x-7f3kq V2.1_x",
	"--service r":                             bootstrap.Control{Socket: "/data/control.sock"},
	"--service r --control h --token t":       bootstrap.Control{Address: "h:15012", Token: "t"},
	"--service r --control [::1]:7 --token t": "[::1]:7",
	"--service r --port 80 --port web=8080:80/http --port g=9:90/grpc": []bootstrap.Port{
		{Port: 80, Target: 80}, {Name: "web", Port: 8080, Target: 80, Protocol: "http"}, {Name: "g", Port: 9, Target: 90, Protocol: "grpc"}},
	"--service r --port 80 --publish 8080 --publish :9090 --publish [::1]:7=80": []bootstrap.Publish{
		{Listen: "127.0.0.1:8080", Port: 80}, {Listen: ":9090", Port: 80}, {Listen: "[::1]:7", Port: 80}},
	"--service r --port 80 --port 81 --publish 1.2.3.4:81":                   []bootstrap.Publish{{Listen: "1.2.3.4:81", Port: 81}},
	"--service r --metrics 9100":                                             "127.0.0.1:9100",
	"--service r --metrics [::]:9100":                                        "[::]:9100",
	"--service r --forward 5432 --forward 6379=db.example:1234":              []bootstrap.Forward{{Listen: 5432, Target: "127.0.0.1:5432"}, {Listen: 6379, Target: "db.example:1234"}},
	"--service r --exclude 10.1.2.3/8 --exclude 5432 --exclude ::1":          3,
	"--service r --label app.example/a.b_c=1":                                map[string]string{"app.example/a.b_c": "1"},
	"--service r --label a=b --label c=":                                     map[string]string{"a": "b", "c": ""},
	"--service r --wait-for cart --wait-for db.shop -- ls --port nope":       []string{"cart", "db.shop"},
	"--service r --resolver 192.0.2.53 --resolver [::1]:5353 --resolver ::2": "nameserver 192.0.2.53:53\nnameserver [::1]:5353\nnameserver [::2]:53\n",
}

func TestRunFlagErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                                                  "--service is missing",
		"--service Reviews":                                 `--service "Reviews"`,
		"--service r --namespace a.b":                       `--namespace "a.b"`,
		"--service r --version -1":                          `--version "-1"`,
		"--service r --port 0":                              `not a port: "0"`,
		"--service r --port 70000":                          `not a port: "70000"`,
		"--service r --port 80/udp":                         `not a protocol: "udp"`,
		"--service r --port 80/":                            `not a protocol: ""`,
		"--service r --port 80:15001":                       "tulle's own",
		"--service r --port 80 --port 80:81":                "given twice",
		"--service r --port Web=80":                         "not a name",
		"--service r --publish 80":                          "no --port",
		"--service r --port 80 --publish x":                 "no port to listen on",
		"--service r --port 80 --publish 8=9":               "9 is not a --port",
		"--service r --port 80 --port 81 --publish 8080":    "say which",
		"--service r --forward x":                           `not a port: "x"`,
		"--service r --forward 80=db":                       `not an address: "db"`,
		"--service r --forward 53":                          "tulle's own",
		"--service r --port 80:90 --forward 90":             "the program itself",
		"--service r --forward 90 --forward 90=h:1":         "given twice",
		"--service r --resolver dns.example":                `--resolver "dns.example"`,
		"--service r --resolver 1.1.1.1:0":                  `--resolver "1.1.1.1:0"`,
		"--service r --exclude x":                           `--exclude "x"`,
		"--service r --label a":                             "KEY=VALUE",
		"--service r --label /a=b":                          "KEY=VALUE",
		"--service r --label a:b=c":                         "KEY=VALUE",
		"--service r --label topology.tulle.dev/shards=4-3": "the first slot is behind the last: write 3-4",
		"--service r" + many(65, " --port %d"):              "at most 64",
		"--service r" + many(65, " --label k%d=v"):          "at most 64",
		"--service r" + many(65, " --forward %d"):           "at most 64",
		"--service r --ready http:path --port 80":           "no path",
		"--service r --ready tcp":                           "no --port",
		"--service r --metrics x":                           "no port to listen on",
		"--service r --ready nope --port 80":                "unknown kind",
		"--service r --token t":                             "--control",
		"--service r --control h":                           "--token",
		"--service r --control h:x --token t":               `--control "h:x"`,
		"--service r --wait-for a.b.c":                      `--wait-for "a.b.c"`,
		"--service r --workers 99":                          "--workers 99",
		"--service r --address host":                        `--address "host"`,
	} {
		_, err := parseRun(t, line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", line, err, want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", line, err)
		}
	}
}

// many repeats a flag with the numbers from 1000.
func many(n int, flag string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, flag, 1000+i)
	}
	return b.String()
}

func TestWorkloadNameIsOneLabel(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range [][2]string{{long, long}, {"a", "v.1."}, {long[:56], "x"}, {"a", ""}} {
		if n := workloadName(c[0], c[1], "7f3kq"); !isLabel(n) {
			t.Errorf("%q, %q: %q", c[0], c[1], n)
		}
	}
}

func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"no-such-program-here": 127, "/no/such": 127, plain: 126, dir: 126} {
		if _, code, err := lookUp(name); err == nil || code != want {
			t.Errorf("%s: code %d, %v; want %d", name, code, err, want)
		}
	}
	if path, _, err := lookUp("sh"); err != nil || !filepath.IsAbs(path) {
		t.Errorf("sh: %q, %v", path, err)
	}
	if hides([]string{"/a/b"}, "/a/b/c") == "" || hides([]string{"/a/b"}, "/a/bc") != "" {
		t.Error("hides")
	}
}
