package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/xds/server"
)

// longestIdentity bounds the life of a workload's certificate.
const longestIdentity = 7 * 24 * time.Hour

// startTimeout bounds the start of a control plane.
const startTimeout = 30 * time.Second

func newUpCommand() *cobra.Command {
	var cfg control.Config
	var level string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a control plane",
		Long: `Start a control plane in this terminal, with its state in the data folder; Ctrl-C ends it, and nothing is lost by
that or by a kill. Workloads go on without it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.DataDir, err = dataDir(cmd); err != nil {
				return err
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level %q: write debug, info, warn or error", level)
			}
			lives := ca.Config{Root: cfg.RootTTL, Intermediate: cfg.IntermediateTTL, Leaf: cfg.IdentityTTL}
			if err := lives.Validate(); err != nil {
				return fmt.Errorf("--identity-lifetime, --intermediate-lifetime, --root-lifetime: %w", err)
			}
			if cfg.IdentityTTL > longestIdentity {
				return fmt.Errorf("--identity-lifetime %s: give %s at most: until then a stolen one is good wherever a revocation is not known", cfg.IdentityTTL, longestIdentity)
			}
			if err := cfg.Issuer.Validate(); err != nil {
				return fmt.Errorf("--issuer: %w", err)
			}
			cfg.Version, cfg.Takes = version(), takes
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			return runUp(cmd, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.HTTPListen, "http-listen", control.DefaultHTTPListen, "`address` of the API (with the admin token)")
	f.StringVar(&cfg.GRPCListen, "grpc-listen", control.DefaultGRPCListen, "`address` that the proxies of other machines connect to")
	f.StringVar(&cfg.BundleListen, "bundle-listen", "", "`address` at which other meshes fetch this one's bundle (SPIFFE bundle endpoint, https_spiffe)")
	f.StringVar(&cfg.TrustDomain, "trust-domain", "", "trust domain of a new mesh (default \"tulle.local\")")
	f.StringSliceVar(&cfg.EtcdEndpoints, "etcd-endpoints", nil, "`URLs` of an etcd cluster to use instead of the embedded etcd")
	f.StringVar(&cfg.EtcdCACert, "etcd-cacert", "", "`file` with the authority of its certificates")
	f.StringVar(&cfg.EtcdCert, "etcd-cert", "", "`file` with the certificate to show to it")
	f.StringVar(&cfg.EtcdKey, "etcd-key", "", "`file` with the key of that certificate")
	f.DurationVar(&cfg.IdentityTTL, "identity-lifetime", ca.LeafTTL, "how long the certificates of workloads are valid, 5s to 168h; they are renewed at 50 to 60 % of it")
	f.DurationVar(&cfg.IntermediateTTL, "intermediate-lifetime", ca.IntermediateTTL, "likewise what signs them, at least 3 times as long; it is replaced after two thirds")
	f.DurationVar(&cfg.RootTTL, "root-lifetime", ca.RootTTL, "likewise the root, at least twice as long as an intermediate; a rotation begins after two thirds")
	issuerFlags(cmd, &cfg.Issuer)
	f.IntVar(&cfg.ConnectionsPerIdentity, "connections-per-identity", server.DefaultPerIdentity, "how `many` connections of proxies one identity may have open here; a proxy needs one, and two for moments")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func runUp(cmd *cobra.Command, cfg control.Config) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	begin := time.Now()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := control.Start(starting, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil // ended by the user while it started
		}
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "control plane of %s ready after %s: API http://%s, proxies %s, data %s\n",
		p.TrustDomain(), time.Since(begin).Round(time.Millisecond), p.HTTPAddress(), p.GRPCAddress(), cfg.DataDir)
	<-ctx.Done()
	stop() // a second signal ends the process at once
	return p.Close()
}
