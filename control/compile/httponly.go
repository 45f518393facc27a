package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// mostNamed is how many ports one note names.
const mostNamed = 5

// HTTPOnly answers what a denial for a whole namespace or mesh does besides: where it looks at requests, ports that are not declared to
// carry something else are HTTP and nothing else from then on. Of all ports, those are told of that nobody has declared; speaks says
// what was learned of them.
func (c Compiler) HTTPOnly(o v1alpha1.Object, every []model.ServiceName, speaks func(model.PortName) model.Protocol) (out []Note) {
	p, ok := o.(*v1alpha1.AuthorizationPolicy)
	if !ok || p.Spec.Action != v1alpha1.ActionDeny || p.Spec.DryRun || len(p.Spec.TargetRefs) > 0 {
		return nil
	}
	rule := slices.IndexFunc(p.Spec.Rules, func(r v1alpha1.AuthorizationRule) bool { return !aboutConnections(r) })
	if rule < 0 {
		return nil
	}
	var ports []string
	policy := SecurityPolicy{Object: o}
	for _, name := range every {
		if _, about := policy.About(name); !about {
			continue
		}
		s, ok := c.Services.Service(name)
		if !ok {
			continue
		}
		for _, port := range s.Ports {
			at := model.PortName{Service: name, Port: port.Port}
			if !c.protocol(at, port.Protocol).Declared() && (speaks == nil || speaks(at) != model.LearnedHTTP) {
				ports = append(ports, at.String())
			}
		}
	}
	if len(ports) == 0 {
		return nil
	}
	slices.Sort(ports)
	named, more := ports, ""
	if len(named) > mostNamed {
		named, more = named[:mostNamed], fmt.Sprintf(" and %d more", len(ports)-mostNamed)
	}
	return []Note{{Path: fmt.Sprintf("spec.rules[%d]", rule), Message: fmt.Sprintf(
		"it denies by what only requests have, and so these ports are HTTP and nothing else, since nobody has declared them: %s%s; declare what they carry (tulle run --port N/tcp, appProtocol of a Service), or name Services in targetRefs",
		strings.Join(named, ", "), more)}}
}
