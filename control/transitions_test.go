package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// TestTransitions: a condition keeps its time as long as it is the same, whoever asks and when; what is remembered has a bound.
func TestTransitions(t *testing.T) {
	var kept transitions
	at := func(name string, i int, status v1alpha1.ConditionStatus, second int64) int64 {
		o := &v1alpha1.TrafficPolicy{}
		o.Namespace, o.Name = "default", name
		list := []v1alpha1.Condition{{Type: "Accepted", Status: status, LastTransitionTime: v1alpha1.Time{Time: time.Unix(second, 0)}}}
		kept.keep(o, i, list)
		return list[0].LastTransitionTime.Unix()
	}
	for _, c := range []struct {
		name         string
		i            int
		status       v1alpha1.ConditionStatus
		second, want int64
	}{
		{"a", 0, "True", 1, 1}, {"a", 0, "True", 2, 1}, {"a", 1, "True", 3, 3}, {"b", 0, "True", 4, 4}, {"a", 0, "False", 5, 5}, {"a", 0, "False", 6, 5}, {"a", 0, "True", 7, 7},
	} {
		if got := at(c.name, c.i, c.status, c.second); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	for i := range maxTransitions + 10 {
		at(fmt.Sprint("x", i), 0, "True", 8)
	}
	if n := len(kept.seen); n > maxTransitions+1 {
		t.Errorf("%d are remembered", n)
	}
}
