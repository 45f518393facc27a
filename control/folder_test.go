package control_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/control"
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

// TestForeignFolder: a folder of something else is left alone, its mode too.
func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := control.Start(t.Context(), config(dir)); err == nil {
		p.Close()
		t.Error("it was taken for a data folder")
	} else if !strings.Contains(err.Error(), "thesis.tex") {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	st, err2 := os.Stat(dir)
	if err != nil || err2 != nil || len(entries) != 1 || st.Mode().Perm() != 0o755 {
		t.Errorf("it was changed: %v, %v", entries, st.Mode())
	}
}
