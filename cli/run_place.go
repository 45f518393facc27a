package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

// askControl answers what the control plane on this machine is; one that is just being started is waited for.
func askControl(dir string) (info httpapi.Info, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*socketPatience)
	defer cancel()
	for end := time.Now().Add(socketPatience); ; time.Sleep(20 * time.Millisecond) {
		err = newClient(dir).call(ctx, http.MethodGet, "/v1/control", nil, &info)
		switch {
		case err == nil:
			return info, nil
		case !errors.Is(err, errNobody):
			return info, err
		case time.Now().After(end):
			return info, fmt.Errorf("no control plane at %s: start one with 'tulle up', or name another with --data-dir or --control", dir)
		}
	}
}

// place decides where other proxies reach the workload (b.Address), and answers the host that its mesh listener is
// bound to. What the user said stands. Else, if the control plane is on this machine, it is where that listens for
// proxies: on loopback, then the mesh is this machine; on one address, that one; on all of them, that of the machine's
// way out. With the control plane on another machine it is the source address of the way there.
func place(b *bootstrap.Bootstrap, listens string) (host string, err error) {
	a, err := netip.ParseAddr(b.Address)
	if b.Address == "" {
		a, err = meshAddress(b.Control.Address, listens)
	}
	if err != nil {
		return "", err
	}
	a = a.Unmap()
	b.Address = a.String()
	if a.IsLoopback() || onMachine(a) {
		return b.Address, nil
	}
	// Another machine has the address and hands on to this one, a NAT for example.
	if a.Is6() {
		return "::", nil
	}
	return "0.0.0.0", nil
}

// meshAddress answers the address of this machine that others reach it at: remote is the control plane on another
// machine, or "" and listens is where the one on this machine listens for proxies.
func meshAddress(remote, listens string) (netip.Addr, error) {
	if remote != "" {
		a, err := wayTo(remote)
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return a, fmt.Errorf("--control %s: %s: %s: give a name that this machine resolves, or an address", remote, dns.Name, dns.Err)
		}
		if err != nil {
			err = fmt.Errorf("no way to the control plane at %s: %w; say with --address where other proxies reach this machine", remote, err)
		}
		return a, err
	}
	at, err := netip.ParseAddrPort(listens)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the control plane listens for proxies at %q: %w; say with --address where other proxies reach this machine", listens, err)
	}
	if !at.Addr().IsUnspecified() {
		return at.Addr(), nil
	}
	for _, outside := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // addresses for documentation: they are routed like any
		if a, err := wayTo(outside); err == nil {
			return a, nil
		}
	}
	return machineAddress()
}

// machineAddress answers the first address that a machine without a way out has on a network.
func machineAddress() (netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	for _, x := range list {
		if n, ok := x.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			a, _ := netip.AddrFromSlice(n.IP)
			return a.Unmap(), nil
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), err
}

// wayTo answers the source address of the way to host:port.
func wayTo(address string) (netip.Addr, error) {
	c, err := net.Dial("udp", address) // sends nothing
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	return a.Addr().Unmap().WithZone(""), err
}

func onMachine(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(x net.Addr) bool {
		n, ok := x.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() == a
	})
}

// listensOn answers the ports of a control plane that no program is let through to.
func listensOn(info *httpapi.Info) (ports []uint16) {
	for _, s := range []string{info.HTTP, info.GRPC} {
		if a, err := netip.ParseAddrPort(s); err == nil {
			ports = append(ports, a.Port())
		}
	}
	return ports
}
