package svid_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
)

var (
	cart = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}
	web  = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "web"}
)

// shake connects the two; it answers what each side says of the handshake and whom the server saw.
func shake(t *testing.T, server, client *tls.Config) (peer spiffe.ID, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer a.Close()
		s := tls.Server(a, server)
		serverErr = s.Handshake()
		peer = svid.PeerID(s.ConnectionState())
	}()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr != nil {
		b.Close()
	}
	<-done
	b.Close()
	return peer, serverErr, clientErr
}

func TestHandshake(t *testing.T) {
	ca := svidtest.New(t)
	stranger := svidtest.New(t)
	for name, x := range map[string]struct {
		server, client svid.Source
		want           spiffe.ID
		ok             bool
	}{
		"both of the mesh":             {ca.Issue(cart), ca.Issue(web), cart, true},
		"the server is another":        {ca.Issue(cart), ca.Issue(web), web, false},
		"the server is a stranger":     {stranger.Issue(cart), ca.Issue(web), cart, false},
		"the client is a stranger":     {ca.Issue(cart), mixed{stranger.Issue(web).SVID, ca.Issue(web).SVID}, cart, false},
		"the client's domain is other": {ca.Issue(cart), ca.Issue(spiffe.ID{TrustDomain: "other", Namespace: "a", ServiceAccount: "b"}), cart, false},
	} {
		peer, serverErr, clientErr := shake(t, svid.ServerConfig(x.server), svid.ClientConfig(x.client, x.want))
		if ok := serverErr == nil && clientErr == nil; ok != x.ok {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
		if x.ok && peer != web {
			t.Errorf("%s: the server saw %s", name, peer)
		}
	}
}

// mixed shows one identity and trusts the roots of another.
type mixed struct{ shown, trusts *svid.SVID }

func (m mixed) Current() *svid.SVID {
	s := *m.shown
	s.Roots = m.trusts.Roots
	return &s
}

func TestVerifyTime(t *testing.T) {
	s := svidtest.New(t).Issue(cart).SVID
	chain := []*x509.Certificate{s.Certificate.Leaf}
	for at, ok := range map[time.Duration]bool{0: true, 6 * time.Hour: false, -6 * time.Hour: false} {
		_, err := svid.Verify(chain, s.Roots, time.Now().Add(at), x509.ExtKeyUsageClientAuth)
		if (err == nil) != ok {
			t.Errorf("at %v: %v", at, err)
		}
	}
	if _, err := svid.Verify(nil, s.Roots, time.Now(), x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("nothing was accepted as a chain")
	}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := svidtest.New(t)
		var tries atomic.Int32
		var fail atomic.Bool
		fetch := func(_ context.Context, now *svid.SVID) (*svid.SVID, error) {
			tries.Add(1)
			if fail.Load() {
				return nil, errors.New("away")
			}
			s := *ca.Issue(cart).SVID
			s.NotBefore, s.NotAfter = time.Now(), time.Now().Add(24*time.Hour)
			return &s, nil
		}
		r, err := svid.NewRotator(t.Context(), svid.Config{Fetch: fetch})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		first := r.Current()
		time.Sleep(11 * time.Hour) // half of 24 h is 12
		synctest.Wait()
		if r.Current() != first || tries.Load() != 1 {
			t.Fatalf("renewed too early: %d tries", tries.Load())
		}
		fail.Store(true)
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if r.Current() != first || tries.Load() < 20 || tries.Load() > 200 {
			t.Fatalf("%d tries while the authority was away", tries.Load())
		}
		fail.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if r.Current() == first {
			t.Fatal("not renewed when the authority was back")
		}
	})
}
