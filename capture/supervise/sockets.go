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
	loopback := netip.MustParseAddr("127.0.0.1")
	if err := s.listen(bootstrap.RoleMetrics, 0, netip.AddrPortFrom(loopback, 0)); err != nil {
		return fmt.Errorf("metrics listener: %w", err)
	}
	for i := range s.Bootstrap.Publish {
		p := &s.Bootstrap.Publish[i]
		addr, err := net.ResolveTCPAddr("tcp", p.Listen)
		if err != nil {
			return fmt.Errorf("--publish %s: %w", p.Listen, err)
		}
		at := addr.AddrPort()
		if addr.IP == nil {
			at = netip.AddrPortFrom(anyAddress(), uint16(addr.Port))
		}
		if err := s.listen(bootstrap.RolePublish, i, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())); err != nil {
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
