//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestEscape: ways out of the program's namespaces that root, or the same user, has on a machine without Tulle.
func TestEscape(t *testing.T) {
	m := newMesh(t)
	program(t, "nsenter", "util-linux")
	program(t, "ip", "iproute2")
	for name, script := range map[string]string{
		"into the namespaces of others": fmt.Sprintf(`for pid in %d $PPID 1; do for ns in n m U p; do
			nsenter -t $pid -$ns true 2>/dev/null && echo "entered $ns of $pid"; done; done; true`, m.control.pid()),
		"another network": `ip link add d0 type dummy 2>/dev/null && echo "made an interface"
			ip route add default dev lo 2>/dev/null && echo "made a route"
			ip address add 192.0.2.9/32 dev lo 2>/dev/null && echo "made an address"; true`,
		"around the cover of the data folder": fmt.Sprintf(`d=%[1]s
			unshare -Urm sh -c "mount --bind $(dirname $d) /mnt && ls -A /mnt/$(basename $d)" 2>/dev/null
			unshare -Urm sh -c "mount --rbind / /mnt; umount -l /mnt$d; ls -A /mnt$d" 2>/dev/null
			mv $d $d.x 2>/dev/null && ls -A $d.x && mv $d.x $d; true`, m.data),
		"what others have open":     `for pid in $PPID 1; do readlink /proc/$pid/fd/* /proc/$pid/cwd /proc/$pid/exe; ls /proc/$pid/map_files; done 2>/dev/null; true`,
		"abstract sockets":          `grep @ /proc/net/unix; true`,
		"the environment of others": `tr '\0' ' ' < /proc/$PPID/environ 2>/dev/null; true`,
	} {
		t.Run(name, func(t *testing.T) {
			if r := m.call("sh", "-c", script); r.code != 0 || r.stdout != "" {
				t.Error(r)
			}
		})
	}
}

// TestSupervisorEndsInOrder: the proxy of a supervisor that was killed says goodbye, so that nobody has to find out
// that the workload is gone.
func TestSupervisorEndsInOrder(t *testing.T) {
	m := newMesh(t)
	p := m.podinfo("short life", "--service", "short")
	kill([]int{p.pid()})
	eventually(t, patience, "the workload is gone", func() error {
		for _, w := range m.status().Workloads {
			if w.State != "live" {
				t.Fatalf("%s is %s", w.Name, w.State)
			}
			return errors.New("it is there")
		}
		return nil
	})
	if text := p.stderr(); strings.Contains(text, "panic") {
		t.Error(text)
	}
}
