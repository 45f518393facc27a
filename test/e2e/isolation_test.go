//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIsolation: what a program must not be able to do.
func TestIsolation(t *testing.T) {
	// The control plane listens on every address, as for a mesh of several machines.
	m := newMesh(t, "--http-listen", "0.0.0.0:"+freePort(t), "--grpc-listen", "0.0.0.0:"+freePort(t))
	m.http, m.grpc = "127.0.0.1:"+portOf(m.flags[1]), "127.0.0.1:"+portOf(m.flags[3])
	m.httpbin()

	t.Run("what is not TCP or DNS is refused at once", func(t *testing.T) {
		refusedAtOnce(t, m, "EPERM", "datagram", "192.0.2.1:9")
		refusedAtOnce(t, m, "EPERM", "datagram", "[2001:db8::1]:9")
		if isRoot() {
			// Root has lost NET_RAW; whether there are unprivileged echo sockets is the machine's choice.
			refusedAtOnce(t, m, "EPERM", "ping", "192.0.2.1")
			return
		}
		if got := m.ok(m.call(self(t), "ping", "192.0.2.1")); !strings.HasPrefix(got, "EPERM ") && !strings.HasPrefix(got, "EACCES ") {
			t.Errorf("ICMP: %s", got)
		}
	})
	t.Run("addresses that nobody has", func(t *testing.T) {
		refusedAtOnce(t, m, "ECONNRESET", "dial", "198.19.255.254:80")
		refusedAtOnce(t, m, "ECONNRESET", "dial", "httpbin:81")                                           // the service has no such port
		refusedAtOnce(t, m, "ECONNRESET", "dial", "127.0.0.1:15001", "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // the proxy itself
	})
	t.Run("the control plane's ports", func(t *testing.T) {
		host := machineAddress(t)
		if host == "" {
			t.Fatal("this needs an address that is not the loopback's: connect the machine to a network")
		}
		for _, address := range []string{m.http, m.grpc} {
			// The program's own loopback is empty; the machine's address leads to nothing of Tulle.
			refusedAtOnce(t, m, "ECONNREFUSED", "dial", address)
			refusedAtOnce(t, m, "ECONNRESET", "dial", net.JoinHostPort(host, portOf(address)))
		}
	})
	t.Run("the control plane's folder", func(t *testing.T) {
		if r := m.call(m.tulle, "get", "services", "--data-dir", m.data); r.code == 0 {
			t.Errorf("a program read the objects: %s", r)
		}
		if r := m.call(m.tulle, "run", "--data-dir", m.data, "--service", "httpbin", "--", "true"); r.code == 0 {
			t.Errorf("a program has taken another identity: %s", r)
		}
		if r := m.call("unshare", "-Urm", "sh", "-c", "mount --bind "+m.dir+" /mnt && ls -A /mnt/d && ls /mnt/d/ca"); r.code == 0 {
			t.Errorf("a program found another way to the control plane's folder: %s", r)
		}
		if r := m.call("sh", "-c", "ls -A "+m.data+"; cat "+m.data+"/admin.token "+m.data+"/ca/*"); r.code == 0 || r.stdout != "" {
			t.Errorf("a program sees the control plane's folder: %s", r)
		}
		if r := m.call("sh", "-c", "umount "+m.data); r.code == 0 {
			t.Errorf("a program took the cover off the control plane's folder: %s", r)
		}
		// Another namespace of its own does not help either.
		if r := m.call("unshare", "-Urm", "sh", "-c", "umount "+m.data+" && ls "+m.data); r.code == 0 {
			t.Errorf("a program took the cover off in a namespace of its own: %s", r)
		}
		// Nor does the way through another process of the same user.
		path := fmt.Sprintf("/proc/%d/root%s", m.control.pid(), m.data)
		if r := m.call("ls", path); r.code == 0 {
			t.Errorf("a program reached the control plane's folder through /proc: %s", r)
		}
		if r := m.call(m.tulle, "get", "services", "--data-dir", path); r.code == 0 {
			t.Errorf("a program reached the control plane through /proc: %s", r)
		}
	})
	t.Run("the proxy and the supervisor", func(t *testing.T) {
		r := m.call("sh", "-c", "readlink /proc/$PPID/exe; cat /proc/$PPID/environ; readlink /proc/$PPID/fd/*; cat /proc/$PPID/mem")
		if r.code == 0 || r.stdout != "" {
			t.Errorf("a program looked into its supervisor: %s", r)
		}
	})
	t.Run("another user", func(t *testing.T) { otherUser(t, m) })
	t.Run("the API wants its token", func(t *testing.T) {
		r := finish(t, exec.Command(program(t, "curl", "curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://"+m.http+"/v1/status"), patience)
		if r.stdout != "401" {
			t.Errorf("without a token: %s", r)
		}
		token := strings.TrimSpace(readText(filepath.Join(m.data, "admin.token")))
		r = finish(t, exec.Command("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Authorization: Bearer "+token, "http://"+m.http+"/v1/status"), patience)
		if r.stdout != "200" {
			t.Errorf("with the token: %s", r)
		}
	})
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// refusedAtOnce runs one of our own programs in the mesh and checks which error it got, in well under a second.
func refusedAtOnce(t *testing.T, m *mesh, want string, args ...string) {
	t.Helper()
	got := m.ok(m.call(append([]string{self(t)}, args...)...))
	name, took, _ := strings.Cut(strings.TrimSpace(got), " ")
	d, err := time.ParseDuration(took)
	if name != want || err != nil || d > 700*time.Millisecond {
		t.Errorf("%v: %s, want %s at once", args, strings.TrimSpace(got), want)
	}
}

// machineAddress answers an address of the machine that is not its loopback, "" if it has none.
func machineAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

// otherUser: root tries as somebody else; an ordinary user cannot become another, and looks at the modes, which
// are what keeps others out.
func otherUser(t *testing.T, m *mesh) {
	if isRoot() {
		c := m.command("status", "--data-dir", m.data)
		c.Args = asNobody(t, c.Args...)
		c.Path = c.Args[0]
		if r := finish(t, c, patience); r.code == 0 || !strings.Contains(r.stderr, "another user") {
			t.Errorf("another user asked for the status: %s", r)
		}
		c = m.runCommand([]string{"--service", "thief"}, "true")
		c.Args = asNobody(t, c.Args...)
		c.Path = c.Args[0]
		if r := finish(t, c, patience); r.code == 0 {
			t.Errorf("another user has joined the mesh: %s", r)
		}
	}
	private(t, m.data)
}

// private checks that a data folder is its owner's alone.
func private(t *testing.T, data string) {
	t.Helper()
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %v, want 0700", data, info.Mode())
	}
	secrets := 0
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := []byte{}
		if d.Type().IsRegular() {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if text, err = io.ReadAll(io.LimitReader(f, 1<<16)); err != nil {
				return err
			}
		}
		if d.Name() == "admin.token" || strings.Contains(string(text), "PRIVATE KEY") || d.Type() == fs.ModeSocket {
			secrets++
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if secrets < 4 {
		t.Errorf("only %d secrets and sockets in %s: are they elsewhere?", secrets, data)
	}
}
