package supervise

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
)

// openMachineSockets makes the listeners outside the namespace and writes into the bootstrap where they are.
func (s *supervisor) openMachineSockets() error {
	mesh, err := netip.ParseAddr(s.MeshHost)
	if err != nil {
		return fmt.Errorf("address of this machine %q: %w", s.MeshHost, err)
	}
	if err := s.listen(bootstrap.RoleMesh, 0, netip.AddrPortFrom(mesh, 0)); err != nil {
		return fmt.Errorf("mesh listener: %w", err)
	}
	metrics := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if s.Bootstrap.Metrics != "" {
		if metrics, err = machineAddress(s.Bootstrap.Metrics); err != nil {
			return fmt.Errorf("--metrics %s: %w", s.Bootstrap.Metrics, err)
		}
	}
	if err := s.listen(bootstrap.RoleMetrics, 0, metrics); err != nil {
		return fmt.Errorf("metrics listener: %w%s", err, publishHint(err))
	}
	for i := range s.Bootstrap.Publish {
		p := &s.Bootstrap.Publish[i]
		at, err := machineAddress(p.Listen)
		if err != nil {
			return fmt.Errorf("--publish %s: %w", p.Listen, err)
		}
		if err := s.listen(bootstrap.RolePublish, i, at); err != nil {
			return fmt.Errorf("--publish %s: %w%s", p.Listen, err, publishHint(err))
		}
		p.Listen = s.sockets[len(s.sockets)-1].Local
	}
	if s.Bootstrap.Admin == "" {
		return nil
	}
	if err := s.listenAdmin(s.Bootstrap.Admin); err != nil {
		s.Bootstrap.Admin = ""
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

// machineAddress reads host:port; without a host every address of the machine is meant.
func machineAddress(text string) (netip.AddrPort, error) {
	addr, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if addr.IP == nil {
		return netip.AddrPortFrom(anyAddress(), uint16(addr.Port)), nil
	}
	at := addr.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

func publishHint(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "; choose another port, or 0 for a free one"
	case errors.Is(err, unix.EACCES):
		return "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return ""
}

// anyAddress is the wildcard that takes both families where there are two.
func anyAddress() netip.Addr {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (s *supervisor) listen(role bootstrap.Role, index int, at netip.AddrPort) error {
	fd, local, err := netns.Listen(at)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", at, err)
	}
	s.sockets = append(s.sockets, bootstrap.Socket{Role: role, V6: at.Addr().Is6(), Index: index, Local: local, FD: fd})
	return nil
}

// listenAdmin makes the unix socket, in a folder that only this user enters.
func (s *supervisor) listenAdmin(path string) error {
	if len(path) > 107 {
		return fmt.Errorf("%s is longer than the 107 bytes that a unix socket may have; choose a shorter --data-dir", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	os.Remove(path) // of a workload of this name that was killed
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		if err = os.Chmod(path, 0o600); err == nil {
			err = unix.Listen(fd, 128)
		}
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", path, err)
	}
	s.sockets = append(s.sockets, bootstrap.Socket{Role: bootstrap.RoleAdmin, Local: path, FD: fd})
	return nil
}
