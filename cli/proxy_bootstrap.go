package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/proxy/gateway"
	"github.com/tulle-mesh/tulle/proxy/handover"
	bootstrapfile "github.com/tulle-mesh/tulle/xds/bootstrap"
)

// gatewayFlags are those of tulle proxy --bootstrap.
type gatewayFlags struct {
	bootstrap   string
	concurrency int
	level       string
	drain       time.Duration
	check       bool
	handover    string
}

func (f *gatewayFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.bootstrap, "bootstrap", "", "Envoy v3 bootstrap to run, YAML or JSON")
	c.Flags().IntVar(&f.concurrency, "concurrency", 0, "event loops (0: one for each processor, 8 at most)")
	c.Flags().StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	c.Flags().DurationVar(&f.drain, "drain-time", 10*time.Minute, "how long connections may go on at the end")
	c.Flags().BoolVar(&f.check, "check", false, "only say whether the bootstrap is valid")
	c.Flags().StringVar(&f.handover, "handover", "", "unix socket at which a new proxy takes over from a running one without losing a connection")
}

// runGateway is the life of a proxy without a workload. SIGTERM and SIGINT drain, the second ends at once; SIGHUP reads
// secrets anew and opens access logs again.
func runGateway(f *gatewayFlags, out io.Writer) error {
	var level slog.LevelVar
	to, err := parseLevel(f.level)
	if err != nil {
		return err
	}
	level.Set(to)
	b, err := bootstrapfile.Read(f.bootstrap)
	if err != nil {
		return err
	}
	if f.check {
		if err := gateway.Check(b); err != nil {
			return inFile(f.bootstrap, err)
		}
		fmt.Fprintf(out, "%s is valid\n", f.bootstrap)
		return nil
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	signals := make(chan os.Signal, 4) // before anything is served: a signal must not be missed
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	cfg := gateway.Config{Bootstrap: b, Loops: f.concurrency, Log: log, Version: version(), Drain: f.drain, Level: &level}
	p, err := startGateway(cfg, f.handover)
	if err != nil {
		return inFile(f.bootstrap, err)
	}
	defer p.Close()
	log.Info("serving", "bootstrap", f.bootstrap, "admin", p.AdminAddress())
	return p.live(signals, log)
}

// inFile says where in the file err comes from.
func inFile(file string, err error) error {
	var f *gateway.FieldError
	if errors.As(err, &f) {
		if line := bootstrapfile.Line(file, f.Field); line > 0 {
			return fmt.Errorf("%s:%d: %w", file, line, err)
		}
	}
	return fmt.Errorf("%s: %w", file, err)
}

func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("--log-level %q: say debug, info, warn or error", s)
}

// running is a gateway and its part in hand-overs.
type running struct {
	*gateway.Gateway
	successors *handover.Server // nil: none is awaited
	yielded    chan struct{}
}

// startGateway starts a gateway, in place of the one that serves the hand-over path if there is one.
func startGateway(cfg gateway.Config, path string) (*running, error) {
	p := &running{yielded: make(chan struct{})}
	var taken *handover.Taken
	var err error
	if path != "" {
		taken, err = handover.Take(path, cfg.Version)
		switch {
		case errors.Is(err, handover.ErrNobody):
			taken = nil
		case err != nil:
			return nil, err
		default:
			defer taken.Close()
			cfg.Tickets = taken.Tickets
			cfg.Inherited = func(at netip.AddrPort) (int, bool) { return taken.Listener(at) }
		}
	}
	if p.Gateway, err = gateway.Start(cfg); err != nil {
		return nil, err
	}
	if taken != nil {
		p.WaitReady()
		if err := taken.Ready(); err != nil {
			p.Drain(nil)
			p.Gateway.Close()
			return nil, err
		}
	}
	if path != "" {
		p.successors, err = handover.Serve(handover.Config{Path: path, Version: cfg.Version, Log: cfg.Log, Offer: p.Offer, After: taken,
			Yield: func(took map[string]bool) { p.Yield(took); close(p.yielded) }})
		if err != nil {
			p.Gateway.Close()
			return nil, err
		}
	}
	return p, nil
}

// Close ends everything at once.
func (p *running) Close() {
	if p.successors != nil {
		p.successors.Close()
	}
	p.Gateway.Close()
}

// live returns when the proxy has drained, or is to end without that.
func (p *running) live(signals <-chan os.Signal, log *slog.Logger) error {
	for {
		select {
		case <-p.yielded:
			log.Info("another proxy has taken over; draining")
			p.Leave()
			return p.drained(signals, log)
		case s := <-signals:
			if s == syscall.SIGHUP {
				p.Reload()
				continue
			}
			log.Info("draining", "signal", s.String(), "connections", p.Connections())
			p.DrainListeners()
			return p.drained(signals, log)
		}
	}
}

// drained waits for the end of what is under way, or for another signal.
func (p *running) drained(signals <-chan os.Signal, log *slog.Logger) error {
	end := make(chan struct{})
	done := make(chan int64, 1)
	go func() { done <- p.Wait(end) }() // ends at the latest with end
	for {
		select {
		case left := <-done:
			if left > 0 {
				log.Warn("connections were cut", "connections", left)
			}
			return nil
		case s := <-signals:
			if s != syscall.SIGHUP {
				close(end)
				signals = nil
			}
		}
	}
}
