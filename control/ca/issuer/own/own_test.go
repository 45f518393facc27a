package own_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/own"
)

func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		c, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: issuertest.TrustDomain}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return issuertest.Rig{Issuer: own.Issuer{CA: c}, Rotate: func(context.Context) {
			now := time.Now()
			if err := c.RotateRoot(now); err != nil {
				t.Error(err)
			}
		}}
	})
}
