package cli

import (
	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control"
)

// issuerFlags are those of 'tulle up' that say who signs certificates.
func issuerFlags(cmd *cobra.Command, i *control.Issuer) {
	f := cmd.Flags()
	f.StringVar(&i.Kind, "issuer", control.IssuerOwn, "who signs the certificates of workloads: `own`, pem, vault, step-ca, spire or csr-files (docs/guides/issuers.md)")
	f.StringVar(&i.Address, "issuer-address", "", "vault, step-ca: https://`host:port`; spire: host:port of the server's API")
	f.StringVar(&i.CA, "issuer-ca", "", "vault, step-ca: `file` with the authority of its own certificate; spire: with its bundle")
	f.StringVar(&i.Roots, "issuer-roots", "", "pem, csr-files: `file` with the roots below which it signs; vault, step-ca: with roots to believe besides theirs")
	f.StringVar(&i.Cert, "issuer-cert", "", "pem: `file` with the intermediate, and behind it those between it and the root")
	f.StringVar(&i.Key, "issuer-key", "", "pem: `file` with its key; step-ca: with the provisioner's key (JWK); mode 0600")
	f.StringVar(&i.Mount, "issuer-mount", "", "vault: `path` of the PKI engine (default \"pki\")")
	f.StringVar(&i.Role, "issuer-role", "", "vault: `name` of the role")
	f.StringVar(&i.Namespace, "issuer-namespace", "", "vault: `name` of its namespace")
	f.BoolVar(&i.Verbatim, "issuer-verbatim", false, "vault: sign-verbatim instead of sign")
	f.StringVar(&i.Token, "issuer-token-file", "", "vault: `file` with a token, mode 0600; it is read again each time; spire: with a join token")
	f.StringVar(&i.RoleIDFile, "issuer-role-id-file", "", "vault: `file` with the role ID of an AppRole, mode 0600")
	f.StringVar(&i.SecretIDFile, "issuer-secret-id-file", "", "vault: `file` with its secret ID, mode 0600")
	f.StringVar(&i.AuthMount, "issuer-auth-mount", "", "vault: `path` of AppRole (default \"approle\")")
	f.StringVar(&i.Provisioner, "issuer-provisioner", "", "step-ca: `name` of a JWK provisioner")
	f.StringVar(&i.Password, "issuer-password-file", "", "step-ca: `file` with the password of its key, mode 0600")
	f.StringVar(&i.Folder, "issuer-folder", "", "csr-files: `folder` in which requests appear and certificates are put")
	f.StringVar(&i.Ref, "issuer-ref", "", "csr-files: `kind/name` of the issuer in the CertificateRequests of cert-manager (default \"Issuer/tulle\")")
}
