package control

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Names in the data folder.
const (
	lockFile       = "lock"
	adminTokenFile = "admin.token"
	metricsToken   = "metrics.token"
	apiSocket      = "api.sock"
	proxySocket    = "control.sock"
	proxySockets   = "proxies" // folder of the admin sockets of proxies, which 'tulle run' makes
)

// maxSocketPath is what the kernel takes as the path of a unix socket.
const maxSocketPath = 107

// APISocket is where the API of the control plane with this data folder listens for the local user.
func APISocket(dataDir string) string { return filepath.Join(dataDir, apiSocket) }

// ProxySocket is where it listens for the proxies of workloads of the local user.
func ProxySocket(dataDir string) string { return filepath.Join(dataDir, proxySocket) }

// AdminTokenFile holds the bearer token of the API on TCP.
func AdminTokenFile(dataDir string) string { return filepath.Join(dataDir, adminTokenFile) }

// MetricsTokenFile holds the bearer token that opens /metrics of the API on TCP, and nothing else.
func MetricsTokenFile(dataDir string) string { return filepath.Join(dataDir, metricsToken) }

// openFolder makes the data folder and takes it for this process alone.
func (p *Plane) openFolder() error {
	if p.cfg.DataDir == "" {
		return errors.New("no data folder given: name one with --data-dir")
	}
	dir, err := filepath.Abs(p.cfg.DataDir)
	if err != nil {
		return err
	}
	p.cfg.DataDir = dir
	if path := ProxySocket(dir); len(path) > maxSocketPath {
		return fmt.Errorf("the path %s has %d bytes, a unix socket may have %d: choose a shorter --data-dir", path, len(path), maxSocketPath)
	}
	if err := ours(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w: choose another --data-dir", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w: choose another --data-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		by, _ := os.ReadFile(f.Name())
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("a control plane (process %s) already uses %s: stop it, or choose another --data-dir", strings.TrimSpace(string(by)), dir)
		}
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	p.lock = f
	p.onClose(func() { f.Close() }) // the kernel lets go of the lock, also when the process is killed
	if err := f.Truncate(0); err != nil {
		return err
	}
	p.sweep()
	_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// ours refuses a folder that is something else: it is about to be closed to others, and to be hidden from programs.
func ours(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data folder: %w: choose another --data-dir", err)
	}
	foreign := ""
	for _, e := range entries {
		switch e.Name() {
		case lockFile:
			return nil // one of ours, whatever else somebody keeps in it
		case proxySockets: // 'tulle run' may have been there first
		default:
			foreign = e.Name()
		}
	}
	if foreign != "" {
		return fmt.Errorf("%s is in use for something else (there is %s in it, and no state of a control plane): choose an empty --data-dir", dir, foreign)
	}
	return nil
}

// sweep removes the admin sockets that supervisors left behind when they were killed with their proxies.
func (p *Plane) sweep() {
	left, _ := filepath.Glob(filepath.Join(p.cfg.DataDir, proxySockets, "*.sock"))
	for _, path := range left {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			os.Remove(path)
		}
	}
}

// listenUnix opens a socket in the data folder for this user alone. One that a killed process left behind is
// replaced: the lock says that it is nobody's.
func (p *Plane) listenUnix(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, cause(err))
	}
	// The folder's mode keeps others out before this does.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	p.onClose(func() { l.Close() })
	return l, nil
}

// token answers a token of the API on TCP, and makes it on the first start.
func (p *Plane) token(path string) (string, error) {
	text, err := os.ReadFile(path)
	if token := strings.TrimSpace(string(text)); err == nil && len(token) >= 32 {
		return token, os.Chmod(path, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	token := hex.EncodeToString(secret)
	next := path + ".new"
	if err := os.WriteFile(next, []byte(token+"\n"), 0o600); err != nil {
		return "", err
	}
	return token, os.Rename(next, path)
}
