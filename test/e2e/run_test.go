//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestProcess: a program under tulle run is the process that it would be without.
func TestProcess(t *testing.T) {
	m := newMesh(t)
	sh := func(script string) result { t.Helper(); return m.call("sh", "-c", script) }

	t.Run("exit codes", func(t *testing.T) {
		for _, code := range []int{0, 1, 42, 125, 255} {
			if r := sh(fmt.Sprintf("exit %d", code)); r.code != code || r.stderr != "" {
				t.Errorf("exit %d: %s", code, r)
			}
		}
		if r := m.call("no-such-program-here"); r.code != 127 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("a program that does not exist: %s", r)
		}
		if r := m.call(writeFile(t, filepath.Join(m.dir, "text"), "not a program")); r.code != 126 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("a file that is not a program: %s", r)
		}
		if r := sh("kill -KILL $$"); r.code != 128+9 {
			t.Errorf("a program that SIGKILL ended: %s", r)
		}
	})
	t.Run("signals", func(t *testing.T) {
		for name, sig := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1} {
			p := m.run([]string{"--service", "signals"}, "sh", "-c", "trap 'echo got; exit 7' "+name+"; echo up; while true; do sleep 0.02; done")
			eventually(t, patience, "the program is up", func() error {
				if p.stdout() != "up\n" {
					return fmt.Errorf("%q %s", p.stdout(), p.stderr())
				}
				return nil
			})
			p.signal(sig)
			if code := p.wait(patience); code != 7 || p.stdout() != "up\ngot\n" {
				t.Errorf("SIG%s: exit code %d, %q", name, code, p.stdout())
			}
		}
		p := m.run([]string{"--service", "signals"}, "sleep", "1000")
		eventually(t, patience, "the program is up", func() error {
			if p.programOf("sleep 1000") == 0 {
				return fmt.Errorf("children: %v", descendants(p.pid()))
			}
			return nil
		})
		p.signal(syscall.SIGTERM)
		if code := p.wait(patience); code != 128+15 {
			t.Errorf("a program without a handler for SIGTERM: exit code %d", code)
		}
	})
	t.Run("streams", func(t *testing.T) {
		all := make([]byte, 3<<20)
		for i := range all {
			all[i] = byte(i * 7)
		}
		r := m.callInput(bytes.NewReader(all), "sh", "-c", "tee /dev/stderr")
		if r.code != 0 || r.stdout != string(all) || r.stderr != string(all) {
			t.Errorf("exit code %d; %d, %d and %d bytes on the three streams differ", r.code, len(all), len(r.stdout), len(r.stderr))
		}
		if r := m.callInput(strings.NewReader(""), "sha256sum"); !strings.HasPrefix(r.stdout, fmt.Sprintf("%x", sha256.Sum256(nil))) {
			t.Errorf("empty standard input: %s", r)
		}
	})
	t.Run("environment", func(t *testing.T) {
		c := m.runCommand([]string{"--service", "shell"}, "env")
		c.Env = append(c.Env, "ODD=a b=c\nd")
		c.Dir = m.dir
		want := strings.Join(c.Env, "\n")
		got := m.ok(m.finish(c))
		for line := range strings.Lines(got) {
			line = strings.TrimSuffix(line, "\n")
			if !strings.Contains(want, line) && !strings.HasPrefix(line, "PWD=") {
				t.Errorf("a variable that was not given: %q", line)
			}
		}
		if !strings.Contains(got, "ODD=a b=c\nd") {
			t.Error("a variable with blanks and lines has not arrived")
		}
	})
	t.Run("user, folder, rights", func(t *testing.T) {
		c := m.runCommand([]string{"--service", "shell"}, "sh", "-c", "id -u; id -g; pwd; umask; grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status")
		c.Dir = "/usr"
		lines := strings.Split(m.ok(m.finish(c)), "\n")
		mask := syscall.Umask(0)
		syscall.Umask(mask)
		if want := fmt.Sprintf("%d %d /usr %04o", os.Getuid(), os.Getgid(), mask); strings.Join(lines[:4], " ") != want {
			t.Errorf("user, group, folder and mask are %v, want %s", lines[:4], want)
		}
		for _, line := range lines[4 : len(lines)-1] {
			name, set, _ := strings.Cut(line, ":\t")
			var bits uint64
			if _, err := fmt.Sscanf(set, "%x", &bits); err != nil {
				t.Fatal(line, err)
			}
			// NET_ADMIN, NET_RAW, SYS_MODULE, SYS_PTRACE, SYS_ADMIN, BPF
			taken := uint64(1<<12 | 1<<13 | 1<<16 | 1<<19 | 1<<21 | 1<<39)
			if bits&taken != 0 || !isRoot() && bits != 0 && name != "CapBnd" {
				t.Errorf("the program has rights that it must not have: %s", line)
			}
		}
	})
	t.Run("ended while it waits", func(t *testing.T) {
		p := m.run([]string{"--service", "waiting", "--wait-for", "nobody"}, "echo", "never")
		eventually(t, patience, "it waits", func() error {
			if !strings.Contains(p.stderr(), "nobody") {
				return fmt.Errorf("%q", p.stderr())
			}
			return nil
		})
		p.signal(syscall.SIGTERM)
		if code := p.wait(patience); code != 128+15 || p.stdout() != "" {
			t.Errorf("exit code %d, %q", code, p.stdout())
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		if left := descendants(os.Getpid()); len(left) > 1 { // the control plane
			t.Errorf("%d processes are left: %v", len(left), left)
		}
	})
}

// TestWithoutControlPlane: the first thing that a user may forget is told in one line.
func TestWithoutControlPlane(t *testing.T) {
	m := &mesh{t: t, tulle: binary(t, "tulle"), dir: tempDir(t)}
	m.data = filepath.Join(m.dir, "d")
	for _, r := range []result{m.call("true"), m.cli("status")} {
		if r.code != 1 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "tulle up") {
			t.Error(r)
		}
	}
}
