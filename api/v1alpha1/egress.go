package v1alpha1

import "fmt"

// MeshEgress is whom workloads may talk to outside of the mesh. What an AuthorizationPolicy on an ExternalService says comes
// first, then Rules, then Mode. UDP is refused whatever is said here.
type MeshEgress struct {
	// Mode is Any, or Registry: then only Services and ExternalServices are reached. Default Any: a mesh that begins must not
	// stop what works.
	Mode string `json:"mode,omitempty"`
	// Rules, at most 64; the first that fits decides.
	Rules []EgressRule `json:"rules,omitempty"`
}

// EgressRule allows or denies addresses outside of the mesh; what is not given fits always.
type EgressRule struct {
	// Name is said in logs. Default rules[i].
	Name string `json:"name,omitempty"`
	// Action is Allow or Deny.
	Action string `json:"action"`
	// Namespaces of the workloads that call.
	Namespaces []string `json:"namespaces,omitempty"`
	// Services of the workloads that call, in these namespaces.
	Services []string `json:"services,omitempty"`
	// Selector: labels that the workload has.
	Selector map[string]string `json:"selector,omitempty"`
	// Addresses, or prefixes of them.
	Addresses []string `json:"addresses,omitempty"`
	// Ports that are called.
	Ports []int32 `json:"ports,omitempty"`
}

// Modes of MeshEgress.
const (
	EgressAny      = "Any"
	EgressRegistry = "Registry"
)

func defaultEgress(e *MeshEgress) {
	if e == nil {
		return
	}
	if e.Mode == "" {
		e.Mode = EgressAny
	}
	for i := range e.Rules {
		if e.Rules[i].Name == "" {
			e.Rules[i].Name = fmt.Sprintf("rules[%d]", i)
		}
	}
}

func (c *check) meshEgress(e *MeshEgress) {
	if e == nil {
		return
	}
	if e.Mode != EgressAny && e.Mode != EgressRegistry {
		c.fail("spec.egress.mode", "%q is not a mode: write Any or Registry", e.Mode)
	}
	c.count("spec.egress.rules", len(e.Rules), maxPolicyRules)
	for i := range e.Rules {
		r, at := &e.Rules[i], fmt.Sprintf("spec.egress.rules[%d]", i)
		if !only(r.Name, lower+upper+digits+"-_.[]", lower+upper+digits+"]", 63) {
			c.fail(at+".name", "%q is not a name: at most 63 of letters, digits, '-', '_' and '.'", r.Name)
		}
		if r.Action != ActionAllow && r.Action != ActionDeny {
			c.fail(at+".action", "%q is not an action: write Allow or Deny", r.Action)
		}
		c.count(at+".ports", len(r.Ports), maxEntries)
		for k, p := range r.Ports {
			c.between(fmt.Sprintf("%s.ports[%d]", at, k), int64(p), 1, 65535)
		}
		for _, list := range []struct {
			name  string
			texts []string
		}{{"namespaces", r.Namespaces}, {"services", r.Services}} {
			c.count(at+"."+list.name, len(list.texts), maxEntries)
			for k, s := range list.texts {
				if !label(s) {
					c.fail(fmt.Sprintf("%s.%s[%d]", at, list.name, k), "%q is not a name: at most 63 of a-z, 0-9 and '-'", s)
				}
			}
		}
		for k, v := range r.Selector {
			if !qualified(k) || !labelValue(v) {
				c.fail(at+".selector."+k, "%q is not a label", k+"="+v)
			}
		}
		c.blocks(at+".addresses", r.Addresses)
	}
}
