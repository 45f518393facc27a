package status

import (
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
)

// External answers the status of an ExternalService.
func External(c compile.Compiler, e Enforcement, o *v1alpha1.ExternalService, now time.Time) (out v1alpha1.ExternalServiceStatus) {
	addresses, accepted := c.ExternalStatus(o)
	acknowledged, subscribed := 0, 0
	for _, p := range o.Spec.Ports {
		a, n := e.Enforced(model.PortName{Service: model.External(o.Namespace, o.Name), Port: uint16(p.Port)}, "")
		acknowledged, subscribed = acknowledged+a, subscribed+n
	}
	out.Addresses = addresses
	for _, cond := range []compile.Condition{accepted, programmedBy(acknowledged, subscribed)} {
		out.Conditions = append(out.Conditions, condition(cond, o.Generation, now))
	}
	return out
}
