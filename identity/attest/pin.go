package attest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"

	"github.com/tulle-mesh/tulle/identity/jointoken"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// pinned are the credentials for a control plane that we know nothing of but the token: the root at the end of
// its chain must be the one that the token pins, and the chain must be good for it. That has been seen before
// the token is sent.
func pinned(token string, clock *svid.Clock) (credentials.TransportCredentials, error) {
	t, err := jointoken.Parse(token)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does
		VerifyConnection: func(s tls.ConnectionState) error {
			for _, c := range s.PeerCertificates {
				if !t.Pins(c.Raw) {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				_, err := svid.Verify(s.PeerCertificates, roots, clock.Now(), x509.ExtKeyUsageServerAuth)
				if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
					err = fmt.Errorf("%w: compare the clocks of both machines", err)
				}
				return err
			}
			return errors.New("it is not the control plane that the token is for (its root is another one)")
		},
	}), nil
}
