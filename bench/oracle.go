package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/bench/play"
)

// question is requests that are sent to a file of test/bootstrap on Envoy and on Tulle, and what is compared of the answers.
type question struct {
	file, what string
	method     string // GET
	path       string
	fields     map[string]string // of the request; x-play is for the servers (play.Actors)
	times      int               // 1; more: one after the other, and shares are compared
	together   bool              // all times at once
	see        []string          // fields of the answer that are compared, besides the status; x-back is who answered
	deliveries bool              // how often servers got it is compared
	sick       string            // the server that fails its health checks
	otherwise  string            // the documented difference, docs/reference/xds.md
}

var retryQuestions = []question{
	{what: "503 once", fields: map[string]string{"x-play": "503 1"}},
	{what: "503 always", fields: map[string]string{"x-play": "503 99"}},
	{what: "500 once: not in retry_on", fields: map[string]string{"x-play": "500 1"}},
	{what: "429 once: retriable_status_codes", fields: map[string]string{"x-play": "429 1"}},
	{what: "429 once, `Retry-After: 1`", fields: map[string]string{"x-play": "429 1 1"}},
	{what: "429 once, `Retry-After: 60`", fields: map[string]string{"x-play": "429 1 60"}, otherwise: "whoever asks for more than `max_interval` is not asked again"},
	{what: "404 always", fields: map[string]string{"x-play": "404 99"}},
	{what: "reset once", fields: map[string]string{"x-play": "reset 1"}},
	{what: "reset always", fields: map[string]string{"x-play": "reset 99"}, otherwise: "502, where Envoy says 503: the connection stood"},
	{what: "POST, 503 once", method: http.MethodPost, fields: map[string]string{"x-play": "503 1"}},
	{what: "POST /orders, 503 once", method: http.MethodPost, path: "/orders", fields: map[string]string{"x-play": "503 1"}},
	{what: "POST /orders, reset once", method: http.MethodPost, path: "/orders", fields: map[string]string{"x-play": "reset 1"}, otherwise: "502, where Envoy says 503: the connection stood"},
	{what: "/slow, 1 s once: hedged", path: "/slow", fields: map[string]string{"x-play": "slow 1"}},
	{what: "/slow, 503 once", path: "/slow", fields: map[string]string{"x-play": "503 1"}},
	{what: "/slow, 503 always", path: "/slow", fields: map[string]string{"x-play": "503 99"}},
	{what: "200 times, 503 once each", times: 200, fields: map[string]string{"x-play": "503 1"}},
}

var balancingQuestions = []question{
	{what: "/beta: a subset", path: "/beta", times: 100, see: []string{"x-back"}},
	{what: "/versions: weights of subsets", path: "/versions", times: 3000, see: []string{"x-back"}},
	{what: "/regions: weights of localities", path: "/regions", times: 3000, see: []string{"x-back"}},
	{what: "/reports: weights by reports, before there are any", path: "/reports", times: 2000, see: []string{"x-back"}},
	{what: "/: the policy that Envoy passes over", path: "/", times: 2000, see: []string{"x-back"}, otherwise: "`tulle.v1.Balancing`: the nearest first"},
}

var actionQuestions = []question{
	{what: "path_redirect, strip_query", path: "/old?a=b", see: []string{"location"}},
	{what: "https_redirect, port_redirect", path: "/secure/x?a=b", see: []string{"location"}},
	{what: "host_redirect, prefix_rewrite", path: "/docs/a/b?c=d", see: []string{"location"}},
	{what: "redirect by regex_rewrite", path: "/go/one/two?c=d", see: []string{"location"}},
	{what: "regex_rewrite", path: "/service/a/b/c?d=e", see: []string{"x-path", "x-host"}},
	{what: "CORS, a request", path: "/shared", fields: map[string]string{"origin": "https://shop.example"}, see: []string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}},
	{what: "CORS, of another origin", path: "/shared", fields: map[string]string{"origin": "https://other.example"}, see: []string{"access-control-allow-origin"}},
	{what: "CORS, preflight", method: http.MethodOptions, path: "/shared", fields: map[string]string{"origin": "https://a.shop.example", "access-control-request-method": "PUT"}, deliveries: true,
		see: []string{"access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age", "access-control-allow-credentials"}},
	{what: "fault: abort, header matches", path: "/broken", fields: map[string]string{"x-break": "yes"}, deliveries: true},
	{what: "fault: abort, header does not", path: "/broken", fields: map[string]string{"x-break": "no"}, deliveries: true},
	{what: "fault: delay and gRPC status", path: "/late", fields: map[string]string{"content-type": "application/grpc"}, see: []string{"grpc-status"}, deliveries: true},
	{what: "mirrors", path: "/copied", deliveries: true},
	{what: "mirrors, POST", method: http.MethodPost, path: "/copied", deliveries: true},
	{what: "round robin over two, 1000 times", path: "/stateless", times: 1000, see: []string{"x-back"}},
	{what: "session disabled", path: "/stateless", see: []string{"set-cookie"}},
}

var otherQuestions = []question{
	{file: "http", what: "GET", path: "/a/b?c=d", see: []string{"x-path", "x-host"}, deliveries: true},
	{file: "http", what: "HEAD", method: http.MethodHead, path: "/a", see: []string{"x-path", "content-length"}, deliveries: true},
	{file: "http", what: "DELETE, 404", method: http.MethodDelete, fields: map[string]string{"x-play": "404 99"}, deliveries: true},
	{file: "http", what: "503: no retry_policy", fields: map[string]string{"x-play": "503 1"}, deliveries: true},
	{file: "http", what: "reset: no retry_policy", fields: map[string]string{"x-play": "reset 1"}, deliveries: true, otherwise: "502, where Envoy says 503: the connection stood"},
	{file: "breakers", what: "40 at once of 0.5 s", fields: map[string]string{"x-play": "work 99"}, times: 40, together: true, deliveries: true, otherwise: "who waits for a connection that is being made for it is none of `max_pending_requests`"},
	{file: "breakers", what: "40 at once, other priority", path: "/operators", fields: map[string]string{"x-play": "work 99"}, times: 40, together: true, deliveries: true, otherwise: "who waits for a connection that is being made for it is none of `max_pending_requests`"},
	{file: "health", what: "one of three fails its checks", times: 1000, see: []string{"x-back"}, sick: "8081"},
}

// oracleRow is what both said to a question.
type oracleRow struct {
	question
	envoy, tulle replies
}

// replies are counted by what was compared.
type replies struct {
	by        map[string]int
	delivered map[string]int // to servers, by port, if deliveries are compared; else by none
}

// oracles asks both every question.
func oracles(r *results) error {
	if r.options.envoy == "" {
		return fmt.Errorf("there is nobody to ask: no Envoy: %s", r.options.noEnvoy)
	}
	r.oracle = nil
	for file, list := range map[string][]question{"retries": retryQuestions, "balancing": balancingQuestions, "actions": actionQuestions} {
		for i := range list {
			list[i].file = file
			list[i].deliveries = list[i].deliveries || file == "retries" && list[i].times == 0
		}
	}
	all := slices.Concat(retryQuestions, balancingQuestions, actionQuestions, otherQuestions)
	byFile := map[string][]int{}
	for i, q := range all {
		byFile[q.file] = append(byFile[q.file], i)
		r.oracle = append(r.oracle, oracleRow{question: q})
	}
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		for _, name := range []string{"Envoy", "Tulle"} {
			err := r.options.asked(file, name, func(a *play.Actors, front string) error {
				say("oracle  %s.yaml on %s", file, name)
				for _, i := range byFile[file] {
					got, err := all[i].ask(a, front)
					if err != nil {
						return fmt.Errorf("%s: %w", all[i].what, err)
					}
					if name == "Envoy" {
						r.oracle[i].envoy = got
					} else {
						r.oracle[i].tulle = got
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s.yaml on %s: %w", file, name, err)
			}
		}
	}
	for i := range r.oracle {
		say("oracle  %-10s %-50s %s", r.oracle[i].file, r.oracle[i].what, r.oracle[i].verdict())
	}
	return nil
}

var aPort = regexp.MustCompile(`port_value: ([0-9]+)`)

// asked runs a file of test/bootstrap on a proxy, with free ports, and servers at those of its endpoints.
func (o options) asked(file, name string, f func(a *play.Actors, front string) error) error {
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.close()
	text, err := os.ReadFile(filepath.Join("test", "bootstrap", file+".yaml"))
	if err != nil {
		return fmt.Errorf("%w; run the bench in the folder of the module", err)
	}
	ports, a := map[string]string{}, &play.Actors{}
	defer a.Close()
	for _, m := range aPort.FindAllStringSubmatch(string(text), -1) {
		if port := m[1]; ports[port] == "" && (port[0] == '8' || port == "9082") {
			if ports[port], err = a.Add(port); err != nil {
				return err
			}
		} else if ports[port] == "" {
			ports[port] = freePort()
		}
	}
	written := w.file("oracle.yaml", aPort.ReplaceAllStringFunc(string(text), func(s string) string {
		address := ports[strings.TrimPrefix(s, "port_value: ")]
		return "port_value: " + address[strings.LastIndexByte(address, ':')+1:]
	}))
	command := []string{o.envoy, "-c", written, "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"}
	if name == "Tulle" {
		command = []string{o.tulle, "proxy", "--bootstrap", written, "--concurrency", "1"}
	}
	if _, err := w.start(command[0], command[1:]...); err != nil {
		return err
	}
	if err := waitFor(ports["10000"]); err != nil {
		return err
	}
	return f(a, "http://"+ports["10000"])
}

// ask sends the requests of a question.
func (q *question) ask(a *play.Actors, front string) (replies, error) {
	a.Sick(q.sick)
	if q.sick != "" {
		<-time.After(8 * time.Second) // two checks fail, two seconds apart, and the first may be late
	}
	a.Forget()
	out := replies{by: map[string]int{}}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed error
	one := func(i int) {
		text, err := q.send(client, front, i)
		mu.Lock()
		defer mu.Unlock()
		out.by[text]++
		if err != nil {
			failed = err
		}
	}
	for i := range max(q.times, 1) {
		if q.together {
			all.Go(func() { one(i) })
		} else {
			one(i)
		}
	}
	all.Wait()
	if q.deliveries {
		<-time.After(300 * time.Millisecond) // copies go after the request
		out.delivered = a.Got()
	}
	return out, failed
}

// send sends one request and answers what is compared of its answer.
func (q *question) send(client *http.Client, front string, i int) (string, error) {
	method, path, body := q.method, q.path, ""
	if path == "" {
		path = "/"
	}
	if method == http.MethodPost {
		body = "text"
	}
	r, err := http.NewRequest(method, front+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Host = "front.example"
	for name, value := range q.fields {
		r.Header.Set(name, value)
	}
	r.Header.Set("x-id", fmt.Sprint(i))
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text := fmt.Sprint(resp.StatusCode)
	for _, name := range q.see {
		text += ", " + name + " " + strings.Join(resp.Header.Values(name), "; ")
	}
	return text, nil
}

// same reports whether both said the same: the same answers and deliveries, or shares that are as near to each other as chance
// lets two samples be (4.5 standard deviations).
func (row *oracleRow) same() bool {
	n := float64(max(row.times, 1))
	near := func(a, b map[string]int, bound func(p float64) float64) bool {
		for _, m := range []map[string]int{a, b} {
			for k := range m {
				x, y := float64(a[k]), float64(b[k])
				if math.Abs(x-y) > bound((x+y)/2/n) {
					return false
				}
			}
		}
		return true
	}
	bound := func(p float64) float64 {
		if row.times < 2 || row.together {
			return 0
		}
		return 4.5 * math.Sqrt(2*n*p*max(0, 1-p))
	}
	if row.deliveries && row.times < 2 {
		sum := func(m map[string]int) (n int) {
			for _, v := range m {
				n += v
			}
			return n
		}
		if sum(row.envoy.delivered) != sum(row.tulle.delivered) || len(row.envoy.delivered) != len(row.tulle.delivered) {
			return false
		}
	}
	return near(row.envoy.by, row.tulle.by, bound)
}

func (row *oracleRow) verdict() string {
	switch {
	case row.same() && row.otherwise == "":
		return "same"
	case row.same():
		return "same in this run; documented: " + row.otherwise
	case row.otherwise != "":
		return "as documented: " + row.otherwise
	}
	return fmt.Sprintf("**differs**: Envoy %v, Tulle %v", row.envoy, row.tulle)
}

const oracleHeading = "\n## The same files on Envoy\n"

// oracleTable tells what was asked, and where the answers are not the same.
func (r *results) oracleTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s\nFiles of test/bootstrap on Envoy and on Tulle, the same requests to both: status, the fields that matter, how often servers got each, and\nwho answered, in shares that may differ by 4.5 standard deviations; on %s. What differs is in docs/reference/xds.md.\n\n| file | asked | |\n|---|---|---|\n", oracleHeading, r.begun.Format("2006-01-02"))
	for i := range r.oracle {
		row := &r.oracle[i]
		fmt.Fprintf(b, "| %s | %s | %s |\n", row.file, row.what, row.verdict())
	}
}
