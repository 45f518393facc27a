package telemetry

import (
	"fmt"
	"strings"
)

// Reference answers the reference page, in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Metrics and access log\n\nGenerated from package `telemetry` by `go test ./telemetry -update`; do not edit.\n\n")
	b.WriteString("Every proxy serves its metrics in Prometheus text format at `/metrics`. Labels come from a closed list, and a proxy makes at\n" +
		"most 2000 combinations of them: what is over that budget is counted under `other`, never lost.\n\n## Metrics\n\n| name | type | meaning | labels |\n|---|---|---|---|\n")
	metricRows(&b, Metrics())
	b.WriteString("\n## Metrics of the control plane\n\nThe control plane serves them at `/metrics` of its API: on the unix socket for its user, on TCP with a bearer token, that of\n" +
		"`metrics.token` in its data folder, which opens nothing else, or the admin token.\n\n```yaml\nscrape_configs:\n- job_name: tulle-control\n  static_configs: [{targets: [\"127.0.0.1:7070\"]}]\n" +
		"  authorization: {credentials_file: /path/to/data/metrics.token}\n```\n\n| name | type | meaning | labels |\n|---|---|---|---|\n")
	metricRows(&b, ControlMetrics())
	b.WriteString("\n## Labels\n\n| name | meaning |\n|---|---|\n")
	for _, l := range Labels {
		fmt.Fprintf(&b, "| `%s` | %s |\n", l.Name, l.Meaning)
	}
	b.WriteString("\n## Access log\n\nOne JSON object per line when it is on (POST `/accesslog?on=true` to the proxy's admin socket).\n" +
		"A line is written when the exchange or connection has ended. Lines that cannot be written in time are dropped and counted.\n\n| field | meaning |\n|---|---|\n")
	for _, f := range LogFields {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Name, f.Meaning)
	}
	return b.String()
}

func metricRows(b *strings.Builder, list []Metric) {
	for _, m := range list {
		labels := ""
		for i, l := range m.Labels {
			if i > 0 {
				labels += ", "
			}
			labels += "`" + l + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, m.Meaning, labels)
	}
}
