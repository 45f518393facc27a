package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tulle-mesh/tulle/examples/shop"
)

// demoOptions are the flags of `tulle demo`.
type demoOptions struct {
	duration time.Duration // how long traffic flows; 0: until the user ends it
	json     bool          // one document on stdout instead of a view
	keep     bool          // keep the folder with the logs
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole mesh with a small shop in it, and watch what flows",
		Long: `Run a control plane, a shop of seven services (HTTP, gRPC, plain TCP; one in two versions), each under
'tulle run', and a load generator, on this machine, as the user you are. Everything ends with the demo.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return runDemo(ctx, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.Flags().DurationVar(&o.duration, "for", 0, "end after this long with traffic on every edge; 0: when you end it")
	c.Flags().BoolVar(&o.json, "json", false, "no view; print one JSON document at the end (needs --for)")
	c.Flags().BoolVar(&o.keep, "keep", false, "keep the folder with data and logs")
	return c
}

// newShopCommand runs one service of the shop; the demo starts its workloads through it, so that one binary is enough.
func newShopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shop SERVICE [VERSION]", Hidden: true, Short: "Run one service of the demo's shop", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if code := shop.Main(args, shop.Config{Logger: log, Out: cmd.OutOrStdout()}); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// runDemo is the whole demo: start, flow, stop, verdict.
func runDemo(ctx context.Context, o demoOptions, out, progress io.Writer) error {
	if o.json && o.duration <= 0 {
		return errors.New("--json prints its document at the end: say when that is, for example --for 20s")
	}
	t, err := newTown()
	if err != nil {
		return err
	}
	defer func() {
		t.close()
		if o.keep {
			fmt.Fprintf(progress, "kept: %s\n", t.dir)
		} else {
			os.RemoveAll(t.dir)
		}
	}()
	view := !o.json && isTerminal(out)
	say := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }
	if err := t.start(ctx, say); err != nil {
		return ignoreCancel(ctx, err)
	}
	if view {
		err = showDemo(ctx, t, o.duration)
	} else {
		err = t.flow(ctx, o.duration)
	}
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	say("stopping the load, then everything else")
	result, err := t.finish()
	if err != nil {
		return err
	}
	if o.json {
		if err := json.NewEncoder(out).Encode(result); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(out, result.table())
	}
	return result.verdict()
}

// ignoreCancel: a demo that the user ended before it had begun has nothing to report.
func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("ended before traffic flowed on every edge")
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
