package v1alpha1

// MeshConfig is what holds for the whole mesh. There is at most one, named "mesh".
type MeshConfig struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       MeshConfigSpec `json:"spec,omitempty"`
}

// MeshConfigSpec is read when the control plane starts.
type MeshConfigSpec struct {
	// TrustDomain of every identity in the mesh. It cannot be changed once the CA exists.
	TrustDomain string `json:"trustDomain,omitempty"`
	// VirtualIPv4 and VirtualIPv6 are the ranges that virtual addresses of services come from.
	VirtualIPv4 string `json:"virtualIPv4,omitempty"`
	VirtualIPv6 string `json:"virtualIPv6,omitempty"`
}

// Defaults of MeshConfig.
const (
	MeshConfigName     = "mesh"
	DefaultTrustDomain = "tulle.local"
	DefaultVirtualIPv4 = "198.18.0.0/15"
	DefaultVirtualIPv6 = "fd74:756c:6c65::/64"
)
