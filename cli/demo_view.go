package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"

	"github.com/tulle-mesh/tulle/telemetry"
)

// demoWindow is how far back the rates of the view look.
const demoWindow = 5 * time.Second

// snapshot is the edges at one moment.
type snapshot struct {
	at    time.Time
	edges []telemetry.Edge
}

// demoView is the live terminal view: what flows on every edge, and a tour by keys.
type demoView struct {
	town    *town
	until   time.Time // zero: until the user ends it
	history []snapshot
	err     error    // of the newest attempt to read
	events  []string // what the user did and what happened
	busy    bool     // an action runs
	start   time.Time
}

type (
	readMsg  snapshot
	errMsg   struct{ err error }
	eventMsg string
	tickMsg  time.Time
)

// showDemo runs the view until the user ends it, ctx ends, or d has passed (0: never).
func showDemo(ctx context.Context, t *town, d time.Duration) error {
	v := &demoView{town: t, start: time.Now()}
	if d > 0 {
		v.until = v.start.Add(d)
	}
	_, err := tea.NewProgram(v, tea.WithContext(ctx), tea.WithAltScreen()).Run()
	if ctx.Err() != nil {
		return nil // Ctrl-C is how a demo ends
	}
	return err
}

func (v *demoView) Init() tea.Cmd { return tea.Batch(v.read(), tick()) }

func tick() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) })
}

func (v *demoView) read() tea.Cmd {
	return func() tea.Msg {
		edges, err := v.town.edges(context.Background())
		if err != nil {
			return errMsg{err}
		}
		return readMsg{time.Now(), edges}
	}
}

func (v *demoView) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyMsg:
		return v.key(msg.String())
	case tickMsg:
		if !v.until.IsZero() && time.Now().After(v.until) {
			return v, tea.Quit
		}
		return v, tea.Batch(v.read(), tick())
	case readMsg:
		v.err = nil
		v.history = append(v.history, snapshot(msg))
		for len(v.history) > 2 && msg.at.Sub(v.history[1].at) >= demoWindow {
			v.history = v.history[1:]
		}
	case errMsg:
		v.err = msg.err
	case eventMsg:
		v.busy = false
		v.note(string(msg))
	}
	return v, nil
}

func (v *demoView) note(s string) {
	v.events = append(v.events, time.Now().Format("15:04:05 ")+s)
	v.events = v.events[max(0, len(v.events)-6):]
}

func (v *demoView) key(k string) (tea.Model, tea.Cmd) {
	actions := map[string]func() string{
		"1": func() string { return v.town.canary(90, 10) },
		"2": v.town.killInstance,
		"3": v.town.killControl,
		"0": v.town.noCanary,
	}
	switch {
	case k == "q" || k == "ctrl+c" || k == "esc":
		return v, tea.Quit
	case actions[k] != nil && !v.busy:
		v.busy = true
		do := actions[k]
		return v, func() tea.Msg { return eventMsg(do()) }
	}
	return v, nil
}

var (
	titleStyle = lipgloss.NewStyle().Bold(true)
	goodStyle  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	badStyle   = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	dimStyle   = lipgloss.NewStyle().Faint(true)
)

func (v *demoView) View() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n\n", titleStyle.Render("tulle demo"), dimStyle.Render(fmt.Sprintf(
		"%d workloads, each in a network of its own, mTLS between all of them; %s", len(v.town.instances), time.Since(v.start).Round(time.Second))))
	v.table(&b)
	if v.err != nil {
		fmt.Fprintf(&b, "\n%s\n", badStyle.Render("the control plane does not answer; traffic goes on, the numbers wait"))
	} else {
		b.WriteString("\n\n")
	}
	fmt.Fprintf(&b, "%s\n", dimStyle.Render("1 canary: 10 % of reviews to v2   2 kill -9 one catalog instance   3 kill -9 the control plane   0 remove the canary   q end"))
	fmt.Fprintf(&b, "%s\n\n", dimStyle.Render("another terminal:  "+v.town.exe+" stat --data-dir "+v.town.data()))
	for _, e := range v.events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

// table shows each edge over the window, and its failures since the beginning.
func (v *demoView) table(b *strings.Builder) {
	if len(v.history) < 2 {
		b.WriteString("reading…\n")
		return
	}
	first, last := v.history[0], v.history[len(v.history)-1]
	before := map[telemetry.EdgeKey]telemetry.Edge{}
	for _, e := range first.edges {
		before[e.EdgeKey] = e
	}
	recent := make([]telemetry.Edge, 0, len(last.edges))
	for _, e := range last.edges {
		if old, ok := before[e.EdgeKey]; ok {
			e.Sub(&old)
		}
		recent = append(recent, e)
	}
	now, total := summarize(recent), summarize(last.edges)
	seconds := last.at.Sub(first.at).Seconds()
	fmt.Fprintf(b, "%s\n", titleStyle.Render(fmt.Sprintf("%-10s %-12s %-6s %9s %9s %9s %9s %7s", "SOURCE", "TO", "KIND", "PER SEC", "P50 ms", "P99 ms", "FAILED", "mTLS")))
	for i, e := range now.Edges {
		if e.Requests == 0 && e.Protocol != "tcp" {
			continue // for example the service itself while a route sends its calls elsewhere
		}
		failed := goodStyle.Render(fmt.Sprintf("%9d", total.Edges[i].Failures))
		if total.Edges[i].Failures > 0 {
			failed = badStyle.Render(fmt.Sprintf("%9d", total.Edges[i].Failures))
		}
		mtls := goodStyle.Render("    yes")
		if !total.Edges[i].MTLS {
			mtls = badStyle.Render("     no")
		}
		fmt.Fprintf(b, "%-10s %-12s %-6s %s %s %s\n", e.Source, e.Destination, e.Protocol, rates(e, seconds), failed, mtls)
	}
}

// rates shows requests a second and latencies; of plain TCP, bytes a second.
func rates(e demoEdge, seconds float64) string {
	if e.Protocol == "tcp" {
		return fmt.Sprintf("%9s %9s %9s", fmt.Sprintf("%.0f B", float64(e.Bytes)/seconds), "-", "-")
	}
	return fmt.Sprintf("%9.1f %9.1f %9.1f", float64(e.Requests)/seconds, e.P50, e.P99)
}
