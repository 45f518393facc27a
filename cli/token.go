package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/token"
)

func newTokenCommand() *cobra.Command {
	var req httpapi.TokenRequest
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a join token for workloads on another machine",
		Long: `Make a join token and print it. It lets workloads on another machine into the mesh:

  tulle run --control HOST --token TOKEN --service cart -- ./cart

It is a secret: whoever has it can be any workload that it allows.`,
		Args: cobra.NoArgs,
	}
	o := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&req.Namespace, "namespace", "n", "default", "`namespace` of the workloads")
	f.StringVar(&req.ServiceAccount, "service-account", "", "service account of the workloads (default: any)")
	f.DurationVar(&req.TTL, "ttl", token.DefaultTTL, "how long it can be used")
	f.IntVar(&req.Uses, "uses", token.DefaultUses, "how many workloads can use it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var issued httpapi.Issued
		if err := c.call(cmd.Context(), http.MethodPost, "/v1/tokens", req, &issued); err != nil {
			return err
		}
		return o.print(cmd, issued, func(w io.Writer) { fmt.Fprintln(w, issued.Token) })
	}
	cmd.AddCommand(newTokenListCommand(), newTokenRevokeCommand())
	return cmd
}

func newTokenListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Print the join tokens that still let somebody in", Args: cobra.NoArgs}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list := []token.Info{}
		if err := listing(cmd, "/v1/tokens", nil, &list); err != nil {
			return err
		}
		return o.print(cmd, list, func(w io.Writer) {
			row(w, "ID", "NAMESPACE", "SERVICE-ACCOUNT", "USES", "EXPIRES")
			for _, t := range list {
				row(w, t.ID, t.Namespace, t.ServiceAccount, t.Uses, "in "+age(time.Now(), t.Expires))
			}
		})
	}
	return cmd
}

func newTokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a join token", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := clientOf(cmd)
			if err != nil {
				return err
			}
			var out map[string]string
			return c.call(cmd.Context(), http.MethodDelete, "/v1/tokens/"+url.PathEscape(args[0]), nil, &out)
		},
	}
}
