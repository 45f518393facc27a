package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The steps of the demo's tour. Each answers one line that says what happened; the commands are those that a user
// would type.

const canaryRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: reviews
spec:
  parentRefs:
  - {group: "", kind: Service, name: reviews, port: 8080}
  rules:
  - backendRefs:
    - {name: reviews-v1, port: 8080, weight: %d}
    - {name: reviews-v2, port: 8080, weight: %d}
`

func (t *town) canaryFile() string { return filepath.Join(t.dir, "canary.yaml") }

// canary shares the calls of reviews out between its versions.
func (t *town) canary(v1, v2 int) string {
	if err := os.WriteFile(t.canaryFile(), fmt.Appendf(nil, canaryRoute, v1, v2), 0o600); err != nil {
		return err.Error()
	}
	if line, err := t.cli("apply", "-f", t.canaryFile()); err != nil {
		return line
	}
	return fmt.Sprintf("canary: %d %% of the calls of reviews go to v2 (tulle apply -f %s)", v2*100/(v1+v2), t.canaryFile())
}

func (t *town) noCanary() string {
	if line, err := t.cli("delete", "-f", t.canaryFile()); err != nil {
		return line
	}
	return "the canary is removed: both versions share the calls again"
}

// cli runs one command against the demo's control plane; on failure the first line it said is answered.
func (t *town) cli(args ...string) (string, error) {
	out, err := exec.Command(t.exe, append(args, "--data-dir", t.data())...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	return line, err
}

// killInstance ends one of several instances of a service as a machine that loses power would: supervisor, proxy and
// program at once, with no goodbye.
func (t *town) killInstance() string {
	byService := map[string][]*resident{}
	for _, r := range t.instances {
		if !r.ended() {
			byService[r.Service] = append(byService[r.Service], r)
		}
	}
	victims := byService["catalog"]
	if len(victims) < 2 {
		return "catalog has only one instance left; it is not killed"
	}
	pids := append([]int{victims[0].cmd.Process.Pid}, descendants(victims[0].cmd.Process.Pid)...)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one may have ended with another
	}
	return fmt.Sprintf("killed one of %d catalog instances with all its processes %v", len(victims), pids)
}

func (t *town) killControl() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.control.ended() {
		return "the control plane is down already"
	}
	_ = t.control.cmd.Process.Kill() // it may be ending
	return fmt.Sprintf("killed the control plane (process %d); it is started again in %s", t.control.cmd.Process.Pid, demoRestart)
}

// descendants answers all processes below pid.
func descendants(pid int) []int {
	var out []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is right
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // that thread has ended
		}
		for s := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(append(out, n), descendants(n)...)
			}
		}
	}
	return out
}
