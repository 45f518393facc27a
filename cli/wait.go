package cli

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newWaitCommand() *cobra.Command {
	var revision int64
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until every proxy enforces what is stored", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := clientOf(cmd)
			if err != nil {
				return err
			}
			return waitFor(cmd, c, revision, timeout)
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "revision to wait for (default: the present one)")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up after this long")
	return cmd
}

func waitFor(cmd *cobra.Command, c *client, revision int64, timeout time.Duration) error {
	path := "/v1/wait?timeout=" + timeout.String()
	if revision > 0 {
		path += fmt.Sprintf("&revision=%d", revision)
	}
	var r httpapi.WaitResult
	if err := c.call(cmd.Context(), http.MethodGet, path, nil, &r); err != nil {
		return err
	}
	if r.Enforced {
		fmt.Fprintf(cmd.OutOrStdout(), "revision %d is enforced by every proxy\n", r.Revision)
		return nil
	}
	var late []string
	for _, s := range r.Stragglers {
		text := s.Workload
		if s.Reason != "" {
			text += " (" + s.Reason + ")"
		}
		late = append(late, text)
	}
	return fmt.Errorf("revision %d is not enforced after %s by %s: see 'tulle status'", r.Revision, timeout, strings.Join(late, ", "))
}
