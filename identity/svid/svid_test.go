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
	"github.com/tulle-mesh/tulle/model"
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

// TestBelieve: another trust is in force at once and for every later identity, and asks for a new one soon where it says so.
func TestBelieve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := svidtest.New(t)
		var tries atomic.Int32
		clock := &svid.Clock{Elapsed: sinceNow()}
		r, err := svid.NewRotator(t.Context(), svid.Config{Clock: clock, Fetch: func(context.Context, *svid.SVID) (*svid.SVID, error) {
			tries.Add(1)
			s := *ca.Issue(cart).SVID
			s.Made, s.NotBefore, s.NotAfter = clock.Now(), clock.Now().Add(-5*time.Minute), clock.Now().Add(time.Hour)
			return &s, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		believe := func(m model.Trust) *svid.Trust {
			m.Bundles = []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ca.Root.Raw}}}
			trust, err := svid.NewTrust("tulle.local", &m)
			if err != nil {
				t.Fatal(err)
			}
			r.Believe(trust)
			return trust
		}
		time.Sleep(time.Minute)
		first := believe(model.Trust{Stage: 1, Renew: time.Now().Add(-10 * time.Minute).Unix()})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if r.Current().Trust != first || tries.Load() != 1 {
			t.Fatalf("%d identities were obtained", tries.Load())
		}
		second := believe(model.Trust{Stage: 2, Renew: time.Now().Unix()})
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		if r.Current().Trust != second || tries.Load() != 2 {
			t.Fatalf("%d identities, stage %d", tries.Load(), r.Current().Trust.Model.Stage)
		}
	})
}

// TestReplaceRevoked: whose certificate, but not identity, is revoked gets another at once, whether he hears it from the mesh or from who
// refuses him; while that fails he tries again, not too often, until he has one or the revocation is taken back; and who is given
// nothing but revoked ones does not ask without end.
func TestReplaceRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := svidtest.New(t)
		var tries atomic.Int32
		var fail atomic.Bool
		r, err := svid.NewRotator(t.Context(), svid.Config{Fetch: func(context.Context, *svid.SVID) (*svid.SVID, error) {
			tries.Add(1)
			if fail.Load() {
				return nil, errors.New("away")
			}
			s := *ca.Issue(cart).SVID
			s.Made, s.NotBefore, s.NotAfter = time.Now(), time.Now(), time.Now().Add(24*time.Hour)
			return &s, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		believe := func(revoked ...model.Revocation) {
			trust, err := svid.NewTrust("tulle.local", &model.Trust{Revoked: revoked, Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ca.Root.Raw}}}})
			if err != nil {
				t.Fatal(err)
			}
			r.Believe(trust)
			synctest.Wait()
		}
		want := func(what string, from, to int32) {
			t.Helper()
			if n := tries.Swap(0); n < from || n > to {
				t.Errorf("%s: asked %d times, want %d to %d", what, n, from, to)
			}
		}
		serial := func() model.Revocation {
			return model.Revocation{Serial: r.Current().Certificate.Leaf.SerialNumber.Bytes()}
		}
		tries.Store(0)
		time.Sleep(time.Hour)
		believe(model.Revocation{Identity: cart.String(), Before: time.Now().Add(time.Hour).Unix()})
		time.Sleep(time.Minute)
		want("the identity is revoked", 0, 0)
		first := r.Current()
		believe(serial())
		want("the certificate is revoked", 1, 1)
		if r.Current().Certificate.Leaf == first.Certificate.Leaf || r.Current().Revoked() != nil {
			t.Error("the revoked one is in force")
		}
		r.Judged(first, errors.New("late"))
		time.Sleep(time.Minute)
		want("the one before is refused", 0, 0)

		r.Judged(r.Current(), errors.New("revoked"))
		synctest.Wait()
		want("the certificate is refused", 1, 1)
		r.Judged(r.Current(), errors.New("revoked"))
		synctest.Wait()
		want("the next as well", 0, 0)
		time.Sleep(6 * time.Second)
		want("the next as well, later", 1, 1)

		time.Sleep(time.Minute)
		fail.Store(true)
		r.Judged(r.Current(), errors.New("revoked"))
		time.Sleep(10 * time.Minute)
		want("nobody answers", 10, 40)
		if f, _ := r.Failing(); f == nil {
			t.Error("it does not say so")
		}
		r.Judged(r.Current(), nil)
		time.Sleep(time.Hour)
		if f, _ := r.Failing(); f != nil || tries.Load() > 1 {
			t.Errorf("taken again: %v, asked %d times", f, tries.Load())
		}
	})
}

// TestHearing: who is to be told that he was revoked is let in, nobody else who is not believed is.
func TestHearing(t *testing.T) {
	ca := svidtest.New(t)
	server, client := &believing{}, ca.Issue(web)
	trust, err := svid.NewTrust("tulle.local", &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ca.Root.Raw}}},
		Revoked: []model.Revocation{{Serial: client.SVID.Certificate.Leaf.SerialNumber.Bytes()}}})
	if err != nil {
		t.Fatal(err)
	}
	server.Store(ca.Issue(cart).SVID.Believing(trust))
	if _, err, _ := shake(t, svid.ServerConfig(server), svid.ClientConfig(client, cart)); !errors.Is(err, svid.ErrCertificate) {
		t.Errorf("who does not tell: %v", err)
	}
	if _, err, _ := shake(t, svid.HearingConfig(server), svid.ClientConfig(client, cart)); err != nil {
		t.Errorf("who tells: %v", err)
	}
	if _, err, _ := shake(t, svid.HearingConfig(server), svid.ClientConfig(svidtest.New(t).Issue(web), cart)); err == nil {
		t.Error("another authority's is let in")
	}
}

// sinceNow is a Clock's Elapsed in virtual time.
func sinceNow() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}

// TestClock: once the control plane has said the time, neither a wrong clock nor one that is set changes what is valid.
func TestClock(t *testing.T) {
	wrong, elapsed := time.Now().Add(-3*time.Hour), time.Duration(0)
	c := &svid.Clock{Wall: func() time.Time { return wrong }, Elapsed: func() time.Duration { return elapsed }}
	if _, known := c.Ahead(); known || !c.Now().Equal(wrong) {
		t.Error("before anybody has said the time")
	}
	right := time.Now()
	c.Set(right)
	elapsed += time.Minute
	if d, known := c.Ahead(); !known || d.Round(time.Second) != -3*time.Hour-time.Minute || c.Now().Sub(right).Round(time.Second) != time.Minute {
		t.Errorf("ahead by %s, now %s", d, c.Now())
	}
	wrong = wrong.Add(1000 * time.Hour) // somebody sets it
	if got := c.Now().Sub(right).Round(time.Second); got != time.Minute {
		t.Errorf("moved by %s", got)
	}

	// A peer's certificate is held against the mesh's time.
	ca := svidtest.New(t)
	late := &svid.Clock{Wall: func() time.Time { return time.Now().Add(20 * time.Hour) }}
	shown := timed{ca.Issue(web), late}
	if _, _, err := shake(t, svid.ServerConfig(ca.Issue(cart)), svid.ClientConfig(shown, cart)); err == nil {
		t.Error("a clock that is wrong by a day, and nobody to say so: the certificate looks valid")
	}
	late.Set(time.Now())
	if _, _, err := shake(t, svid.ServerConfig(timed{ca.Issue(cart), late}), svid.ClientConfig(shown, cart)); err != nil {
		t.Error(err)
	}
}

type timed struct {
	svid.Source
	clock *svid.Clock
}

func (t timed) Now() time.Time { return t.clock.Now() }

// TestRevokedResumes: a session that is resumed is worth no more than its certificates.
func TestRevokedResumes(t *testing.T) {
	ca := svidtest.New(t)
	server := &believing{}
	server.Store(ca.Issue(cart).SVID)
	client := svid.ClientConfig(ca.Issue(web), cart)
	client.ClientSessionCache, client.ServerName = tls.NewLRUClientSessionCache(1), "x"
	srv := svid.ServerConfig(server)
	for range 2 {
		if _, s, c := shake(t, srv, client); s != nil || c != nil {
			t.Fatal(s, c)
		}
	}
	trust, err := svid.NewTrust("tulle.local", &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{ca.Root.Raw}}},
		Revoked: []model.Revocation{{Identity: web.String(), Before: time.Now().Unix()}}})
	if err != nil {
		t.Fatal(err)
	}
	server.Store(server.Current().Believing(trust))
	if _, err, _ := shake(t, srv, client); !errors.Is(err, svid.ErrRevoked) {
		t.Errorf("resumed: %v", err)
	}
	for _, bad := range []model.Trust{{}, {Bundles: []model.TrustBundle{{TrustDomain: "other", Roots: [][]byte{ca.Root.Raw}}}},
		{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{[]byte("x")}}}}} {
		if _, err := svid.NewTrust("tulle.local", &bad); err == nil {
			t.Errorf("%+v was understood", bad)
		}
	}
}

type believing struct{ atomic.Pointer[svid.SVID] }

func (b *believing) Current() *svid.SVID { return b.Load() }
