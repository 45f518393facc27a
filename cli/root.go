// Package cli is the command line: one file per subcommand, each of which turns flags into a Config, calls, and
// prints. It is the only package that reads the environment. Errors are one line that says what to do next, on
// stderr, and a command that did not do what it was asked for exits non-zero. Start reading at Main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

// exitCode is an error that has been told already; the process ends with it.
type exitCode int

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// Main runs the command line of this process and answers its exit code.
func Main() int {
	netns.Shim() // does not return in the process that becomes a workload's program
	root := newRootCommand()
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	fmt.Fprint(os.Stderr, errorText(cmd.CommandPath(), err))
	return 1
}

// errorText answers what a user reads: one line, or a line per error in a file.
func errorText(command string, err error) string {
	if e, ok := errors.AsType[*httpapi.Error](err); ok && len(e.Errors) > 0 {
		return fmt.Sprintf("%s\n%s: %s\n", decode.Errors(e.Errors), command, e.Message)
	}
	return fmt.Sprintf("%s: %s\n", command, strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tulle",
		Short: "A service mesh in one binary",
		Long: `Tulle is a service mesh: it discovers, balances, routes, encrypts, identifies and measures what services say to
each other, without a change to them.

  tulle demo                             see a whole mesh at work
  tulle up                               start a control plane
  tulle run --service web -- ./web       start a program as a workload of the mesh
  tulle apply -f route.yaml              change how requests are routed
  tulle upgrade --all                    new proxies for running workloads, which notice nothing`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := ""
				if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
					hint = "did you mean '" + s[0] + "'? "
				}
				return fmt.Errorf("there is no command %q: %ssee 'tulle --help'", args[0], hint)
			}
			return cmd.Help()
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true // completion.go
	root.PersistentFlags().String("data-dir", defaultDataDir(), "data folder of the control plane to start or to talk to")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see '%s --help'", err, cmd.CommandPath())
	})
	root.AddCommand(
		newUpCommand(), newRunCommand(), newUpgradeCommand(), newProxyCommand(), newDemoCommand(), newShopCommand(),
		newApplyCommand(), newDiffCommand(), newDeleteCommand(), newGetCommand(), newWaitCommand(),
		newStatusCommand(), newEndpointsCommand(), newRoutesCommand(), newRetriesCommand(), newStatCommand(),
		newExplainCommand(), newCertCommand(), newAuthzCommand(), newTokenCommand(), newCheckCommand(), newVersionCommand(), newCompletionCommand(),
	)
	return root
}

// dataDir answers the --data-dir of a command as an absolute path.
func dataDir(cmd *cobra.Command) (string, error) {
	dir, err := cmd.Flags().GetString("data-dir")
	if err != nil {
		return "", err
	}
	if dir == "" {
		return "", errors.New("--data-dir is empty: name a folder")
	}
	return filepath.Abs(dir)
}
