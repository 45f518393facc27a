package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/trust"
)

func newCertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cert [WORKLOAD]", Short: "Print what everybody's identity is proven with, and when the first certificate ends",
		Long: `Print the chain of every workload (root, intermediate, leaf) and of the mesh itself, the first certificate that ends anywhere,
where a rotation of the root stands and who it waits for, and alarms.`,
		Example: `  tulle cert                                   everything
  tulle cert default/cart-v1-x7k2p             one workload
  tulle cert rotate --root                     a new root, stage by stage, as the proxies acknowledge it
  tulle cert rotate --rollback                 take that back
  tulle cert revoke spiffe://tulle.local/ns/default/sa/cart --reason stolen`,
		Args: cobra.MaximumNArgs(1),
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var r trust.Report
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/certificates", nil, &r); err != nil {
			return err
		}
		if len(args) == 1 {
			if r.Workloads = only(r.Workloads, args[0]); len(r.Workloads) == 0 {
				return fmt.Errorf("no workload %s has shown a certificate: 'tulle cert' lists those that have", args[0])
			}
		}
		return o.print(cmd, r, func(w io.Writer) { certTables(w, &r, time.Now()) })
	}
	cmd.AddCommand(newRotateCommand(), newCertRevokeCommand(), newRestoreCommand(), newRevokedCommand(), newBundleCommand())
	return cmd
}

// only answers the workloads of a name, with or without their namespace, or with an identity.
func only(list []trust.Workload, name string) (out []trust.Workload) {
	for _, w := range list {
		if w.Workload == name || w.Identity == name || w.Workload == "default/"+name {
			out = append(out, w)
		}
	}
	return out
}

func certTables(w io.Writer, r *trust.Report, now time.Time) {
	fmt.Fprintf(w, "trust domain %s; the first certificate to end: %s, in %s\nissued by %s\n%s\n", r.TrustDomain, r.First.What, left(r.First.Ends, now), r.Issuer, rotationText(&r.Rotation, now))
	for _, a := range r.Alarms {
		fmt.Fprintf(w, "ALARM: %s: %s\n", a.What, a.Message)
	}
	if r.Revoked > 0 {
		fmt.Fprintf(w, "%d revocations are in force: 'tulle cert revoked'\n", r.Revoked)
	}
	if len(r.Aliases) > 0 {
		fmt.Fprintf(w, "counts as the mesh's own: %s\n", strings.Join(r.Aliases, ", "))
	}
	fmt.Fprintln(w)
	row(w, "OF", "CERTIFICATE", "SUBJECT", "SERIAL", "BEGINS", "ENDS", "ISSUER", "NOTE")
	for _, c := range r.Authorities {
		certRow(w, "the mesh", &c, c.Note, now)
	}
	for i := range r.Control {
		certRow(w, "the control plane", &r.Control[i], "", now)
	}
	for _, k := range r.Workloads {
		for i := range k.Chain {
			of, note := "", k.Chain[i].Note
			if i == 0 {
				of, note = k.Workload, workloadNote(&k, now)
			}
			certRow(w, of, &k.Chain[i], note, now)
		}
	}
	for _, f := range r.Federated {
		note := federatedNote(&f, now)
		for i := range f.Bundle {
			certRow(w, "federated "+f.TrustDomain, &f.Bundle[i], note, now)
			note = ""
		}
		if len(f.Bundle) == 0 {
			row(w, "federated "+f.TrustDomain, "root", "-", "-", "-", "-", "-", note)
		}
	}
}

// federatedNote says where a bundle comes from and how old it is.
func federatedNote(f *trust.Federated, now time.Time) string {
	note := "from " + f.From
	if !f.Fetched.IsZero() {
		note += ", read " + age(f.Fetched, now) + " ago"
	}
	if f.Failing != "" {
		note += ", not read again for " + age(f.Since, now) + ": " + f.Failing
	}
	return note
}

// newBundleCommand prints the mesh's own roots for another mesh.
func newBundleCommand() *cobra.Command {
	text := false
	cmd := &cobra.Command{
		Use: "bundle", Short: "Print the mesh's own roots, for another mesh to believe", Args: cobra.NoArgs,
		Long: `Print the roots of the mesh's own trust domain as a SPIFFE bundle (JSON): what another mesh writes in spec.federation[].bundle of its
MeshConfig. 'tulle up --bundle-listen' serves the same to those that ask again and again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := clientOf(cmd)
			if err != nil {
				return err
			}
			var b httpapi.Bundle
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/bundle", nil, &b); err != nil {
				return err
			}
			if text {
				_, err = io.WriteString(cmd.OutOrStdout(), b.PEM)
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(b.Bundle))
			return err
		},
	}
	cmd.Flags().BoolVar(&text, "pem", false, "print PEM certificates instead")
	return cmd
}

func certRow(w io.Writer, of string, c *trust.Certificate, note string, now time.Time) {
	row(w, of, c.Role, c.Subject, c.Serial, c.Begins.Format(time.DateTime), c.Ends.Format(time.DateTime)+" ("+left(c.Ends, now)+")", c.Issuer, note)
}

func workloadNote(k *trust.Workload, now time.Time) string {
	switch {
	case !k.Connected:
		return "not connected for " + age(k.Since, now)
	case k.Failing != "":
		return "not renewed: " + k.Failing
	case k.Behind:
		return "has not acknowledged this stage"
	}
	return ""
}

// left answers "23h", or "ended 5m ago".
func left(ends, now time.Time) string {
	switch {
	case ends.IsZero():
		return "-"
	case ends.Before(now):
		return "ended " + age(ends, now) + " ago"
	}
	return age(now, ends)
}

// rotationText says where a rotation of the root stands.
func rotationText(r *trust.Rotation, now time.Time) string {
	text := fmt.Sprintf("stage %d, for %s: ", r.Stage, age(r.Since, now))
	switch {
	case r.Phase == ca.Steady:
		return text + "one root, no rotation under way"
	case r.Phase == ca.Announced && r.Back:
		text += "the rotation of the root goes back: the old root signs again, the new one is still believed"
	case r.Phase == ca.Announced:
		text += "a new root is believed and does not sign yet"
	case r.Back:
		text += "the rotation of the root goes back: the old root is about to sign again"
	default:
		text += "the new root signs, the old one is still believed"
	}
	for _, x := range r.Waits {
		switch {
		case x.Who != "":
			text += "\n  waits for " + x.Who + ": " + x.Why
		default:
			text += "\n  waits until " + x.End.Format(time.DateTime) + " (" + left(x.End, now) + "): " + x.Why
		}
	}
	return text
}

func newRotateCommand() *cobra.Command {
	var req trust.Rotate
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the root, the intermediate or the certificates of workloads", Args: cobra.NoArgs,
		Long: `Replace what identities are proven with, without a failed handshake. All of it also happens by itself, long before anything ends.

A root is replaced in stages: a new one is made, cross-signed by the old one; every proxy acknowledges it; then it signs; when the
last certificate of the old one has been renewed or has ended, the old one goes. Each stage outlives a restart. A proxy that does not
acknowledge stops the rotation and is named; --force takes the next step without it, --rollback goes back to the old root.`,
	}
	o := outputFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&req.Root, "root", false, "begin with a new root")
	f.BoolVar(&req.Intermediate, "intermediate", false, "put a new intermediate in force, and have the certificates of workloads renewed")
	f.BoolVar(&req.Leaves, "leaves", false, "have the certificates of all workloads renewed")
	f.BoolVar(&req.Rollback, "rollback", false, "take the rotation of the root back that is under way")
	f.BoolVar(&req.Force, "force", false, "take the next step of the root's rotation now, whoever stands in its way")
	f.DurationVar(&wait, "wait", 0, "wait for the end of the root's rotation for so long")
	cmd.MarkFlagsMutuallyExclusive("root", "intermediate", "leaves", "rollback")
	cmd.MarkFlagsOneRequired("root", "intermediate", "leaves", "rollback", "force")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var r trust.Report
		if err := c.call(cmd.Context(), http.MethodPost, "/v1/certificates/rotate", req, &r); err != nil {
			return err
		}
		if wait > 0 {
			if err := awaitSteady(cmd.Context(), c, wait, &r); err != nil {
				return err
			}
		}
		return o.print(cmd, r.Rotation, func(w io.Writer) { fmt.Fprintln(w, rotationText(&r.Rotation, time.Now())) })
	}
	return cmd
}

// rotationEvery is how often the state of a rotation is asked for.
const rotationEvery = 250 * time.Millisecond

// awaitSteady waits until no rotation is under way.
func awaitSteady(ctx context.Context, c *client, wait time.Duration, r *trust.Report) error {
	for end := time.Now().Add(wait); r.Rotation.Phase != ca.Steady; {
		if time.Now().After(end) {
			return errors.New("the rotation is still under way: " + rotationText(&r.Rotation, time.Now()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rotationEvery):
		}
		*r = trust.Report{}
		if err := c.call(ctx, http.MethodGet, "/v1/certificates", nil, r); err != nil {
			return err
		}
	}
	return nil
}

func newCertRevokeCommand() *cobra.Command {
	var req httpapi.RevocationRequest
	cmd := &cobra.Command{
		Use: "revoke SPIFFE-ID|SERIAL", Short: "Take an identity, or one certificate, out of use at once", Args: cobra.ExactArgs(1),
		Long: `Take an identity with all its certificates, or one certificate by its serial number, out of use: no proxy accepts it any more,
connections that are open with it end within a second, and the control plane neither renews it nor hears it. An identity gets no new
certificate until 'tulle cert restore'; a workload whose single certificate was revoked attests again at once, by itself. One on
another machine whose join token is used up cannot: its log says so, and it has to be started again with a new one.`,
	}
	o := outputFlag(cmd)
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for 'tulle cert revoked'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		req.What = args[0]
		var r httpapi.Revoked
		if err := c.call(cmd.Context(), http.MethodPost, "/v1/revocations", req, &r); err != nil {
			return err
		}
		if len(r.Workloads) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), unseen(&r))
		}
		return o.print(cmd, r, func(w io.Writer) { fmt.Fprintln(w, "revoked", r.Name()) })
	}
	return cmd
}

// unseen warns that what was revoked may not be what was meant.
func unseen(r *httpapi.Revoked) string {
	next := "'tulle cert' lists those that are shown"
	if len(r.Near) > 0 {
		next = "was " + strings.Join(r.Near, " or ") + " meant?"
	}
	return fmt.Sprintf("warning: no workload shows %s, it is revoked all the same: %s ('tulle cert restore %[1]s' takes it back)", r.Name(), next)
}

func newRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "restore SPIFFE-ID|SERIAL", Short: "Take a revocation back", Args: cobra.ExactArgs(1)}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		var r trust.Revocation
		if err := c.call(cmd.Context(), http.MethodPost, "/v1/revocations/restore", httpapi.RevocationRequest{What: args[0]}, &r); err != nil {
			return err
		}
		return o.print(cmd, r, func(w io.Writer) {
			fmt.Fprintf(w, "restored %s, which was revoked at %s\n", r.Name(), r.At.Format(time.DateTime))
		})
	}
	return cmd
}

func newRevokedCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revoked", Short: "Print what was revoked", Args: cobra.NoArgs}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list := []trust.Revocation{}
		if err := listing(cmd, "/v1/revocations", nil, &list); err != nil {
			return err
		}
		return o.print(cmd, list, func(w io.Writer) {
			row(w, "REVOKED", "AT", "REASON", "LAST CERTIFICATE ENDS")
			for _, r := range list {
				row(w, r.Name(), r.At.Format(time.DateTime), r.Reason, r.Until.Format(time.DateTime))
			}
		})
	}
	return cmd
}
