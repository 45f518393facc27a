package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/nft"
)

// hasV6 reports whether the kernel has IPv6 at all.
func hasV6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// network brings loopback up and makes every address local. Its first call is the one that a security module
// refuses where it allows user namespaces but no rights in them.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return &StageError{StageLoopback, err}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return &StageError{StageLoopback, err}
	}
	own := []netip.Addr{bootstrap.OwnV4}
	if hasV6() {
		// A machine may switch IPv6 off for all new interfaces; inside the namespace it costs nothing.
		os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("0"), 0)
		own = append(own, bootstrap.OwnV6)
	}
	for _, a := range own {
		if err := address(lo, a); err != nil {
			return &StageError{StageNetwork, fmt.Errorf("address %s: %w", a, err)}
		}
		if err := route(lo, a); err != nil {
			return &StageError{StageNetwork, fmt.Errorf("route of %s: %w", a, err)}
		}
	}
	return nil
}

func address(lo netlink.Link, a netip.Addr) error {
	host := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	// Without NODAD an IPv6 address is tentative until a kernel worker has run, and no source for a route until then.
	return netlink.AddrAdd(lo, &netlink.Addr{IPNet: host, Scope: unix.RT_SCOPE_UNIVERSE, Flags: unix.IFA_F_NODAD})
}

// route is `ip route add local default dev lo src OWN table local`. Without src the program's own address would be
// the one it connects to; in table local, because that is where bind(2) asks whether an address is ours.
func route(lo netlink.Link, own netip.Addr) error {
	bits := own.BitLen()
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
		Src:       own.AsSlice(),
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     unix.RT_SCOPE_HOST,
	})
}

// rules turns the traffic of the namespace to the sockets.
func rules(sockets []bootstrap.Socket) error {
	c := nft.Config{Outbound: bootstrap.OutboundPort, DNS: bootstrap.DNSPort, Own: []netip.Addr{bootstrap.OwnV4, bootstrap.OwnV6}}
	for _, s := range sockets {
		if s.Role != bootstrap.RoleSeedListener {
			continue
		}
		a, err := netip.ParseAddrPort(s.Local)
		if err != nil {
			return err
		}
		c.Seeds = append(c.Seeds, netip.PrefixFrom(a.Addr(), 0))
		c.SeedPort = append(c.SeedPort, a.Port())
	}
	return nft.Apply(nft.Build(c))
}

// sysctls lets the program bind ports below 1024, as it may where it is root. A read-only /proc/sys (some
// containers) is worth a warning, no more.
func sysctls() []string {
	const name = "net/ipv4/ip_unprivileged_port_start"
	if err := os.WriteFile("/proc/sys/"+name, []byte("0"), 0); err != nil && os.Geteuid() != 0 {
		return []string{fmt.Sprintf("the program cannot listen on ports below 1024 (%v)", err)}
	}
	return nil
}
