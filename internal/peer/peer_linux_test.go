package peer_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/peer"
)

// dialEnv, when set, makes the test binary connect to that socket and wait for the end of it.
const dialEnv = "TULLE_TEST_PEER_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		c.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

func TestTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		flags uintptr
		want  string
	}{
		"same namespaces":         {0, ""},
		"another network":         {syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, "another net namespace"},
		"another user namespace":  {syscall.CLONE_NEWUSER, "another user namespace"},
		"another mount namespace": {syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, "another user namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env, cmd.Stderr = append(os.Environ(), dialEnv+"="+path), t.Output()
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: c.flags, Pdeathsig: syscall.SIGKILL}
			if c.flags != 0 {
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
			}
			if err := cmd.Start(); err != nil {
				t.Fatalf("%v: this test needs user namespaces (sysctl user.max_user_namespaces)", err)
			}
			defer cmd.Wait()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			who, err := peer.Trusted(conn.(*net.UnixConn))
			if c.want == "" {
				if err != nil || who.PID != cmd.Process.Pid || int(who.UID) != os.Getuid() {
					t.Fatalf("%+v, %v", who, err)
				}
				return
			}
			if !errors.Is(err, peer.ErrStranger) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%+v, %v; want %q", who, err, c.want)
			}
		})
	}
}
