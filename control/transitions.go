package control

import (
	"fmt"
	"sync"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// maxTransitions bounds what is remembered of conditions; beyond it all is forgotten, and seen anew.
const maxTransitions = 100_000

// transitions remembers since when conditions are as they are. A condition is worked out when somebody asks, so that is when this
// control plane was asked first and it was so.
type transitions struct {
	mu   sync.Mutex
	seen map[string]v1alpha1.Condition
}

// keep gives the conditions of an object, those of its i-th parent or target, the time of their last change.
func (t *transitions) keep(o v1alpha1.Object, i int, list []v1alpha1.Condition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil || len(t.seen) > maxTransitions {
		t.seen = map[string]v1alpha1.Condition{}
	}
	for k := range list {
		c := &list[k]
		key := fmt.Sprintf("%T/%s/%s/%s/%d/%s", o, o.GetNamespace(), o.GetName(), v1alpha1.Meta(o).UID, i, c.Type) // one of that name may come again
		if was, ok := t.seen[key]; ok && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
		t.seen[key] = v1alpha1.Condition{Status: c.Status, LastTransitionTime: c.LastTransitionTime}
	}
}
