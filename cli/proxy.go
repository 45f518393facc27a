package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/identity/attest"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/proxy"
)

// Times of a proxy's first contact with the control plane, and of its end.
const (
	attestFirst = 15 * time.Second       // until the user is told that it failed
	attestRetry = 200 * time.Millisecond // between two tries
	afterTerm   = 5 * time.Second        // to withdraw and drain without a supervisor
)

// newProxyCommand makes tulle proxy: with --bootstrap a proxy without a workload; otherwise that of a workload, which a
// supervisor starts. For that one users start tulle run.
func newProxyCommand() *cobra.Command {
	supervised := false
	var f gatewayFlags
	c := &cobra.Command{
		Use: "proxy --bootstrap FILE", Short: "Run an Envoy bootstrap: a proxy without a workload", Args: cobra.NoArgs,
		Long: `Run what an Envoy v3 bootstrap describes (YAML or JSON), within the subset of docs/reference/xds.md. What is outside of it is
refused by name, file and line, never ignored.

SIGTERM and SIGINT let connections end, the second one ends at once. SIGHUP reads secrets and opens access logs anew.`,
		Example: `  tulle proxy --bootstrap envoy.yaml --check                 is it one that can be run?
  tulle proxy --bootstrap envoy.yaml
  tulle proxy --bootstrap envoy.yaml --handover /run/p.sock  again for a new version: it takes over without a lost connection`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case supervised:
				return runProxy()
			case f.bootstrap == "":
				return errors.New("say --bootstrap FILE; the proxy of a workload is started by 'tulle run'")
			}
			return runGateway(&f, cmd.OutOrStdout())
		},
	}
	f.add(c)
	c.Flags().BoolVar(&supervised, "supervised", false, "take bootstrap and sockets from the supervisor")
	_ = c.Flags().MarkHidden("supervised") // it is there
	return c
}

// runProxy is the life of a proxy process. What ends it is the supervisor's word or its end; signals that a
// terminal sends to everybody are the program's business.
func runProxy() error {
	b, link, err := bootstrap.Open()
	if err != nil {
		return err
	}
	defer link.Close()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP)
	endAfterTerm()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("workload", b.Workload)
	id, err := identify(b, link, log)
	if err != nil {
		return failed(link, err)
	}
	defer id.Close()
	p, err := startProxy(b, link, id, log)
	if err != nil {
		return failed(link, err)
	}
	defer p.Close()
	defer func() {
		if !p.Retired() {
			os.Remove(b.Admin) // the supervisor's, which may be gone
		}
	}()
	return p.Follow(link)
}

// endAfterTerm bounds what is left after SIGTERM. The kernel sends it when the supervisor has died without a word; the
// link says the same, and Follow then withdraws the workload at once and drains, instead of leaving it to the control
// plane to notice.
func endAfterTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { // ends with the process
		<-term
		time.Sleep(afterTerm)
		os.Exit(1)
	}()
}

// failed says that starting again is no use.
func failed(link *bootstrap.Link, err error) error {
	if sent := link.Send(bootstrap.Message{Event: bootstrap.EventFailed, Error: err.Error()}); sent == nil {
		return exitCode(1) // the supervisor tells the user
	}
	return err
}

func startProxy(b *bootstrap.Bootstrap, link *bootstrap.Link, id *attest.Identity, log *slog.Logger) (*proxy.Proxy, error) {
	address, err := proxy.ParseAddress(b.Address)
	if err != nil {
		return nil, err
	}
	return proxy.Start(proxy.Config{Bootstrap: b, Identity: id, Control: id.Address, Server: id.Server, Address: address,
		AccessLog: os.Stderr, Version: version(), Log: log, Another: id.Another, KeepSecurity: func(s []byte) error {
			return link.Send(bootstrap.Message{Event: bootstrap.EventSecurity, Security: s})
		}})
}

// identify answers the workload's identity: that of the proxy before this one while it lasts, so that neither a
// control plane that is away nor a join token that is used up is in the way; else a new one. The supervisor is told
// now and after every renewal, for the proxy after this one.
func identify(b *bootstrap.Bootstrap, link *bootstrap.Link, log *slog.Logger) (*attest.Identity, error) {
	cfg := attest.Config{Namespace: b.Namespace, ServiceAccount: b.ServiceAccount, Service: b.Service, Socket: b.Control.Socket,
		Token: b.Control.Token, Address: b.Control.Address, Log: log}
	id, err := resume(cfg, b, log)
	if err != nil {
		if id, err = attestProxy(cfg, b, log); err != nil {
			return nil, err
		}
	}
	id.Tell(func(s *svid.SVID) {
		kept, err := id.Hold(s)
		if err == nil {
			err = link.Send(bootstrap.Message{Event: bootstrap.EventIdentity, Identity: kept})
		}
		if err != nil {
			log.Warn("a proxy that replaces this one will have to attest again", "error", err)
		}
	})
	return id, nil
}

var errFirst = errors.New("no proxy has run before")

func resume(cfg attest.Config, b *bootstrap.Bootstrap, log *slog.Logger) (*attest.Identity, error) {
	if b.Identity == nil {
		return nil, errFirst
	}
	id, err := attest.Resume(cfg, b.Identity)
	if err != nil {
		log.Warn("attesting again", "error", err)
	}
	return id, err
}

// attestProxy obtains the workload's identity. The first proxy of a workload gives up after attestFirst, for the user
// to see why; one that replaces a crashed one tries for as long as its program runs.
func attestProxy(cfg attest.Config, b *bootstrap.Bootstrap, log *slog.Logger) (*attest.Identity, error) {
	begin, said := time.Now(), false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), attestFirst)
		id, err := attest.Start(ctx, cfg)
		cancel()
		if err == nil {
			return id, nil
		}
		if b.Starts == 0 && (time.Since(begin) >= attestFirst/3 || errors.Is(err, attest.ErrRefused)) {
			return nil, fmt.Errorf("no identity from the control plane: %w", err)
		}
		if b.Starts > 0 && !said {
			said = true
			log.Warn("no identity from the control plane; the proxy serves nothing until it has one", "error", err)
		}
		time.Sleep(attestRetry)
	}
}
