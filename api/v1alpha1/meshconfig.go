package v1alpha1

import (
	"slices"
	"strings"
)

// MeshConfig is what holds for the whole mesh. There is at most one, named "mesh".
type MeshConfig struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       MeshConfigSpec `json:"spec,omitempty"`
}

// MeshConfigSpec is read when the control plane starts, but for TrustDomainAliases, Federation, Defaults, Authorization, MTLS,
// Egress and TrustedHops, which are in force at once.
type MeshConfigSpec struct {
	// TrustDomain of every identity in the mesh. Once the CA exists it is changed in two steps: another one is written, with the one
	// of before in TrustDomainAliases, and when every proxy has acknowledged that, the control plane is started again.
	TrustDomain string `json:"trustDomain,omitempty"`
	// TrustDomainAliases are trust domains that count as the mesh's own: what the mesh's CA has signed for them is believed, and
	// policies that name one of them, or the mesh's own, mean all of them.
	TrustDomainAliases []string `json:"trustDomainAliases,omitempty"`
	// Federation is other trust domains whose identities are believed, and let in only where a policy names them.
	Federation []Federation `json:"federation,omitempty"`
	// VirtualIPv4 and VirtualIPv6 are the ranges that virtual addresses of services come from.
	VirtualIPv4 string `json:"virtualIPv4,omitempty"`
	VirtualIPv6 string `json:"virtualIPv6,omitempty"`
	// Defaults are what every service has that no TrafficPolicy says otherwise about: balancing, connections, breakers,
	// ejection, timeouts, retries, retryBudget, hedging, capacity and concurrency.
	Defaults *TrafficParts `json:"defaults,omitempty"`
	// Egress is whom workloads may talk to outside of the mesh.
	Egress *MeshEgress `json:"egress,omitempty"`
	// Authorization is what becomes of what no AuthorizationPolicy is about.
	Authorization *MeshAuthorization `json:"authorization,omitempty"`
	// MTLS is the mode of ports that no AuthenticationPolicy is about.
	MTLS *MeshMTLS `json:"mtls,omitempty"`
	// TrustedHops is how many proxies stand in front of published ports and are believed in what x-forwarded-for says, 0 to 16:
	// remoteIPBlocks are then about the address that the outermost of them has written. Default 0: about the other end of the
	// connection. Who reaches a published port without passing them can say any address.
	TrustedHops int32 `json:"trustedHops,omitempty"`
}

// MeshAuthorization is the mesh's own decision.
type MeshAuthorization struct {
	// Default is Allow or Deny. Default Allow: a mesh that begins must not stop what works.
	Default string `json:"default,omitempty"`
}

// MeshMTLS is the mesh's own mode.
type MeshMTLS struct {
	// Mode is Strict, Permissive or Disabled. Default Permissive: nothing is published that nobody asked to be, and who calls it
	// from outside of the mesh has no identity yet.
	Mode string `json:"mode,omitempty"`
}

// Defaults of MeshConfig.
const (
	MeshConfigName     = "mesh"
	DefaultTrustDomain = "tulle.local"
	DefaultVirtualIPv4 = "198.18.0.0/15"
	DefaultVirtualIPv6 = "fd74:756c:6c65::/64"
	MaxTrustedHops     = 16
)

// meshDefaults checks what holds for every service: parts that are about one service have no meaning there.
func (c *check) meshDefaults(p *TrafficParts) {
	if p == nil {
		return
	}
	every := strings.Fields("balancing connections breakers ejection timeouts retries retryBudget hedging capacity concurrency")
	for _, part := range p.Names() {
		if !slices.Contains(every, part) {
			c.fail("spec.defaults."+part, "is about one service: write it in a TrafficPolicy on that")
		}
	}
	c.parts("spec.defaults", p)
}
