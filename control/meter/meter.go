// Package meter writes the metrics of a control plane (telemetry.ControlMetrics) in Prometheus text format. It measures nothing itself:
// its parts are asked when somebody wants to know. Safe for concurrent use if they are. Start reading at Meter.
package meter

import (
	"bufio"
	"io"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/telemetry"
	"github.com/tulle-mesh/tulle/telemetry/process"
	"github.com/tulle-mesh/tulle/xds/server"
)

// Meter is whom to ask. All are needed.
type Meter struct {
	Trust       func() *trust.Report
	Proxies     func() int                        // that are connected
	Connections func() (open int, refused uint64) // since the start
	Streams     func() []server.Count
	Decisions   func() (kept int, dropped uint64)
	Issued      func() (issued, failed uint64)
	Now         func() time.Time
	Began       time.Time
}

// Write writes all metrics (version 0.0.4 of the format).
func (m *Meter) Write(to io.Writer) error {
	w := writer{bufio.NewWriter(to)}
	report, streams := m.Trust(), m.Streams()
	open, refused := m.Connections()
	kept, dropped := m.Decisions()
	issued, failed := m.Issued()
	for _, one := range telemetry.ControlMetrics() {
		switch one.Name {
		case telemetry.ControlCertificateLeft:
			w.head(one)
			for _, c := range certificates(report) {
				w.line(one.Name, "certificate", c.What, c.Ends.Sub(m.Now()).Seconds())
			}
		case telemetry.ControlRotationStage:
			w.head(one)
			w.line(one.Name, "phase", string(report.Rotation.Phase), float64(report.Rotation.Stage))
		case telemetry.ControlAlarms:
			w.single(one, float64(len(report.Alarms)))
		case telemetry.ControlProxies:
			w.single(one, float64(m.Proxies()))
		case telemetry.ControlConnections:
			w.single(one, float64(open))
		case telemetry.ControlConnectionsRefused:
			w.single(one, float64(refused))
		case telemetry.ControlPushes:
			w.head(one)
			for _, s := range streams {
				w.line(one.Name, "type", s.Type, float64(s.Pushes))
			}
		case telemetry.ControlNacks:
			w.head(one)
			for _, s := range streams {
				w.line(one.Name, "type", s.Type, float64(s.Nacks))
			}
		case telemetry.ControlDecisionsKept:
			w.single(one, float64(kept))
		case telemetry.ControlDecisionsDropped:
			w.single(one, float64(dropped))
		case telemetry.ControlIssued:
			w.single(one, float64(issued))
		case telemetry.ControlIssuerFailures:
			w.single(one, float64(failed))
		default:
			if v, ok := process.Value(one.Name, m.Began); ok {
				w.single(one, v)
			}
		}
	}
	return w.Flush()
}

// certificates answers those that a person looks after, and the first of all to end.
func certificates(r *trust.Report) (out []trust.Expiry) {
	for _, a := range r.Authorities {
		if a.Note == "signs" {
			out = append(out, trust.Expiry{What: a.Role, Ends: a.Ends})
		}
	}
	if n := len(r.Control); n > 0 {
		out = append(out, trust.Expiry{What: "control", Ends: r.Control[n-1].Ends})
	}
	if !r.First.Ends.IsZero() {
		out = append(out, trust.Expiry{What: "first", Ends: r.First.Ends})
	}
	return out
}

// writer writes the text format. Values of labels are from closed lists and need no escapes.
type writer struct{ *bufio.Writer }

func (w writer) head(m telemetry.Metric) {
	w.WriteString("# HELP " + m.Name + " " + m.Meaning + "\n# TYPE " + m.Name + " " + m.Type + "\n")
}

func (w writer) line(name, label, value string, v float64) {
	w.WriteString(name)
	if label != "" {
		w.WriteString("{" + label + "=" + strconv.Quote(value) + "}")
	}
	w.WriteString(" " + strconv.FormatFloat(v, 'f', -1, 64) + "\n")
}

func (w writer) single(m telemetry.Metric, v float64) {
	w.head(m)
	w.line(m.Name, "", "", v)
}
