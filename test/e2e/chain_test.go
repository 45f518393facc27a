//go:build e2e

package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestChain: six services, half of the calls to the last fail, and every hop tries twice more. What the last one gets is little
// more than what was offered.
func TestChain(t *testing.T) {
	m := newMesh(t)
	var last *player
	for i := 6; i >= 1; i-- {
		p := m.part(fmt.Sprint("s", i), nil, "--service", fmt.Sprint("s", i), "--port", "8080/http")
		if last == nil {
			last = p
			p.be(conduct{Fail: 0.5})
		} else {
			p.be(conduct{Next: fmt.Sprintf("http://s%d:8080/", i+1)})
		}
	}
	shell := m.part("shell", nil, "--service", "shell")
	ask := func(n int) (times float64, got tally) {
		before := last.got()
		got = shell.ask(order{URL: "http://s1:8080/", N: n, Workers: 16})
		return float64(last.got()-before) / float64(n), got
	}
	const config = "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  defaults: {retries: {attempts: 2, statuses: [503], wait: {base: 1ms, maximum: 5ms}}%s}\n"
	m.apply(fmt.Sprintf(config, ""))
	first, got := ask(1000)
	t.Logf("at first the last gets %.3f times what is offered; answers: %v", first, got)
	times, got := ask(2000)
	t.Logf("then %.3f times; answers: %v", times, got)
	if first > 1.2 || times > 1.2 || times < 1.05 {
		t.Errorf("the last gets %.3f and then %.3f times what is offered, want 1.2 at most, and some retries", first, times)
	}
	m.apply(fmt.Sprintf(config, ", retryBudget: {percent: 100, least: 1000}"))
	without, got := ask(500)
	t.Logf("with a budget that bounds nothing: %.3f times; answers: %v", without, got)
	if without < 1.5 {
		t.Errorf("with a budget that bounds nothing the last gets %.3f times what is offered: this test sees nothing", without)
	}
}

// TestClasses: what is of little importance at the first service is so at the second, which its program knows nothing of; and
// the second, with little room, sheds it first.
func TestClasses(t *testing.T) {
	m := newMesh(t)
	m.part("front", nil, "--service", "front", "--port", "8080/http").be(conduct{Next: "http://back:8080/"})
	back := m.part("back", nil, "--service", "back", "--port", "8080/http")
	shell := m.part("shell", nil, "--service", "shell")

	// First, nobody works for a caller that has gone, two hops away.
	back.be(conduct{Work: time.Minute})
	if got := shell.ask(order{URL: "http://front:8080/", Method: "POST", N: 3, Workers: 3, Timeout: 200 * time.Millisecond}); got.of("failed: ") != 3 {
		t.Errorf("of a server that takes a minute: %v", got)
	}
	begin := time.Now()
	back.abandoned(3, 8*time.Second) // who has ended its direction may still wait: three seconds are taken for it
	t.Logf("after %s", time.Since(begin))
	back.be(conduct{Work: 10 * time.Millisecond})
	m.apply(`apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: front}
spec:
  targetRefs: [{group: "", kind: Service, name: front}]
  priority:
  - {match: {headers: [{name: x-class, value: critical}]}, class: critical}
  - {match: {headers: [{name: x-class, value: batch}]}, class: batch}
---
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: back}
spec:
  targetRefs: [{group: "", kind: Service, name: back}]
  concurrency: {least: 4, most: 4}
  retries: {attempts: 0}
`)
	const n = 300
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[string]tally{}
	for class, workers := range map[string]int{"critical": 2, "default": 6, "batch": 6} {
		all.Go(func() {
			answers := shell.ask(order{URL: "http://front:8080/", N: n, Workers: workers, Pause: time.Millisecond, Header: map[string]string{"X-Class": class}})
			mu.Lock()
			defer mu.Unlock()
			got[class] = answers
		})
	}
	all.Wait()
	t.Log(got)
	critical, usual, batch := got["critical"]["200 back"], got["default"]["200 back"], got["batch"]["200 back"]
	if critical < n*99/100 || usual > n*9/10 || batch*2 > usual {
		t.Errorf("answered of %d: %d critical, %d default, %d batch", n, critical, usual, batch)
	}
	for class, answers := range got {
		if answers.of("200 ")+answers.of("503 ") != n {
			t.Errorf("%s: %v", class, answers)
		}
	}
}
