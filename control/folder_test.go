package control_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// TestDeadAdminSockets: what killed supervisors left behind is removed, and nothing else.
func TestDeadAdminSockets(t *testing.T) {
	dir := t.TempDir()
	dead, alive := bootstrap.AdminSocket(dir, "dead-1", "default"), bootstrap.AdminSocket(dir, "alive-1", "default")
	if err := os.Mkdir(filepath.Dir(dead), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dead, alive} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if path == dead {
			l.SetUnlinkOnClose(false)
			l.Close()
		}
	}
	start(t, config(dir))
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dead one is still there: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Error(err)
	}
}
