package v1alpha1

import "net/netip"

// prefix reads an address range that begins at its own first address.
func prefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p.Masked() == p
}
