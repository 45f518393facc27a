package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/capture/supervise"
)

// Times of an upgrade, unless flags say otherwise.
const (
	upgradeReady = 20 * time.Second // for a new proxy to take over
	upgradeDrain = 5 * time.Minute  // for the old one to serve what is open
)

// upgradeFlags are those of tulle upgrade.
type upgradeFlags struct {
	all          bool
	binary       string
	ready, drain time.Duration
}

func newUpgradeCommand() *cobra.Command {
	f := new(upgradeFlags)
	cmd := &cobra.Command{
		Use:   "upgrade [WORKLOAD]...",
		Short: "Replace the proxies of running workloads by those of this binary",
		Long: `Replace the proxy of workloads that 'tulle run' runs here, without restarting their programs and without losing a
request: the new proxy is started beside the old one with the same sockets; when it is ready, the old one accepts nothing
more and ends when what is open has ended.

  tulle upgrade --all                    every workload of this data folder, one after the other
  tulle upgrade reviews-v2-7f3kq         one of them

If a new proxy does not become ready it is ended and the old one carries on. 'tulle run' itself stays what it was until
the workload is restarted.`,
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "upgrade every workload of this data folder")
	fl.StringVar(&f.binary, "binary", "", "`PATH` of the new binary (default: this one)")
	fl.DurationVar(&f.ready, "ready", upgradeReady, "how long a new proxy may take to become ready")
	fl.DurationVar(&f.drain, "drain", upgradeDrain, "how long an old proxy may serve what is open; then it is cut")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := dataDir(cmd)
		if err != nil {
			return err
		}
		return f.run(dir, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// run upgrades one workload after the other. Each begins when the one before has taken over; draining, which may take
// long, is waited for in the end.
func (f *upgradeFlags) run(dir string, args []string, out, complain io.Writer) error {
	if f.ready <= 0 || f.drain < time.Second {
		return errors.New("--ready and --drain are durations such as 20s and 5m; --drain is at least 1s")
	}
	running, err := supervise.Workloads(dir)
	if err != nil {
		return err
	}
	chosen, err := f.choose(running, args, dir)
	if err != nil {
		return err
	}
	if f.binary == "" {
		f.binary = "/proc/self/exe"
	}
	binary, err := os.Open(f.binary)
	if err != nil {
		return fmt.Errorf("--binary: %w", err)
	}
	defer binary.Close()
	failed := 0
	var draining []<-chan string
	for _, w := range chosen {
		drained, err := f.one(w, binary)
		if err != nil {
			failed++
			fmt.Fprintln(complain, "tulle upgrade:", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		draining = append(draining, drained)
	}
	for _, d := range draining {
		line := <-d
		if why, bad := strings.CutPrefix(line, "!"); bad {
			failed++
			fmt.Fprintln(complain, "tulle upgrade:", why)
			continue
		}
		fmt.Fprintln(out, line)
	}
	if failed > 0 {
		return exitCode(1)
	}
	return nil
}

// one upgrades a workload and returns when the new proxy has taken over. drained then gives the line about it, or "!"
// and what went wrong.
func (f *upgradeFlags) one(w supervise.Workload, binary *os.File) (drained <-chan string, err error) {
	took, end := make(chan error, 1), make(chan string, 1)
	go func() { // ends with the process, or when the supervisor has told the end
		line, over := "", false
		err := supervise.Upgrade(w, binary, f.ready, f.drain, func(p supervise.Progress) {
			if !p.Drained {
				over = true
				took <- nil
				return
			}
			line = fmt.Sprintf("%s: %s -> %s, drained in %.1fs", w, said(p.Old), said(p.New), float64(p.Took)/1000)
			if p.Open > 0 {
				line += fmt.Sprintf(" (%d open connections were cut)", p.Open)
			}
		})
		switch {
		case err == nil:
			end <- line
		case over:
			end <- "!" + err.Error()
		default:
			took <- err
		}
	}()
	return end, <-took
}

// said names a proxy.
func said(p supervise.Proxy) string {
	if p.PID == 0 {
		return "none"
	}
	return fmt.Sprintf("%s/%d", p.Version, p.PID)
}

// choose answers the workloads that are meant: by name, or by namespace and name.
func (f *upgradeFlags) choose(running []supervise.Workload, args []string, dir string) ([]supervise.Workload, error) {
	var names []string
	for _, w := range running {
		names = append(names, w.String())
	}
	here := "running here: " + strings.Join(names, ", ")
	if len(running) == 0 {
		here = "no workload runs with " + dir
	}
	switch {
	case f.all && len(args) > 0:
		return nil, errors.New("say --all or name workloads, not both")
	case len(running) == 0:
		return nil, fmt.Errorf("%s: start one with 'tulle run', or name another folder with --data-dir", here)
	case f.all:
		return running, nil
	case len(args) == 0:
		return nil, fmt.Errorf("name a workload, or say --all; %s", here)
	}
	var chosen []supervise.Workload
	for _, arg := range args {
		found := 0
		for _, w := range running {
			if arg == w.String() || arg == w.Name {
				chosen = append(chosen, w)
				found++
			}
		}
		switch {
		case found == 0:
			return nil, fmt.Errorf("no workload %q; %s", arg, here)
		case found > 1:
			return nil, fmt.Errorf("workload %q is in more than one namespace: say which, as NAMESPACE/NAME", arg)
		}
	}
	return chosen, nil
}
