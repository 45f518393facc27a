package telemetry_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/telemetry"
)

// TestQueries: the queries for canary controllers name metrics that there are, with labels that these have.
func TestQueries(t *testing.T) {
	text, err := os.ReadFile("../docs/reference/canary-controllers.md")
	if err != nil {
		t.Fatal(err)
	}
	selectors := regexp.MustCompile(`\b(\w+)\{(direction=[^\[]*)\}\[`).FindAllStringSubmatch(string(text), -1)
	if len(selectors) != 6 {
		t.Errorf("%d selectors, not 6", len(selectors))
	}
	label := regexp.MustCompile(`(?:^|,)(\w+)(?:!~|=~|!=|=)"`)
	for _, s := range selectors {
		i := slices.IndexFunc(telemetry.Metrics(), func(m telemetry.Metric) bool {
			return m.Name == s[1] || m.Type == "histogram" && m.Name == strings.TrimSuffix(s[1], "_bucket")
		})
		if i < 0 {
			t.Errorf("there is no metric %s", s[1])
			continue
		}
		for _, l := range label.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(telemetry.Metrics()[i].Labels, l[1]) {
				t.Errorf("%s has no label %s", s[1], l[1])
			}
		}
	}
}
