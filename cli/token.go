package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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

  tulle token --service cart
  tulle run --control HOST --token TOKEN --service cart -- ./cart

It is a secret: whoever has it can be any workload that it allows. It is for one service, one use and a quarter of an hour, unless you
say otherwise. A workload serves the service of its service account's name, and no other; a token with both --service and
--service-account lets an account of another name serve that service from then on ('tulle token bindings' lists that).`,
		Args: cobra.NoArgs,
	}
	o := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&req.Namespace, "namespace", "n", "default", "`namespace` of the workloads")
	f.StringVar(&req.Service, "service", "", "service that the workloads serve (default: the service account)")
	f.StringVar(&req.ServiceAccount, "service-account", "", "service account of the workloads (default: the service)")
	f.BoolVar(&req.Any, "any", false, "any service account of the namespace, to serve any service of it")
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
	cmd.AddCommand(newTokenListCommand(), newTokenRevokeCommand(), newBindingsCommand(), newUnbindCommand())
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
			row(w, "ID", "NAMESPACE", "SERVICE-ACCOUNT", "SERVICE", "USES", "EXPIRES")
			for _, t := range list {
				row(w, t.ID, t.Namespace, cmp.Or(t.ServiceAccount, "any"), cmp.Or(t.Service, "any"), t.Uses, "in "+age(time.Now(), t.Expires))
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

func newBindingsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bindings", Short: "Print which service accounts may serve services of other names", Args: cobra.NoArgs}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list := []token.Binding{}
		if err := listing(cmd, "/v1/bindings", nil, &list); err != nil {
			return err
		}
		return o.print(cmd, list, func(w io.Writer) {
			row(w, "NAMESPACE", "SERVICE-ACCOUNT", "MAY SERVE")
			for _, b := range list {
				row(w, b.Namespace, b.ServiceAccount, strings.Join(b.Services, ","))
			}
		})
	}
	return cmd
}

func newUnbindCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unbind NAMESPACE SERVICE-ACCOUNT SERVICE", Short: "Have a service account serve a service no more", Args: cobra.ExactArgs(3),
		Long: `Have a service account serve a service of another name no more. Workloads that do are refused when their proxies connect to the
control plane again; end them, or revoke the identity, to have it now.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := clientOf(cmd)
			if err != nil {
				return err
			}
			var out token.Binding
			return c.call(cmd.Context(), http.MethodDelete, "/v1/bindings/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1])+"/"+url.PathEscape(args[2]), nil, &out)
		},
	}
}
