package workload_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/workload"
	"github.com/tulle-mesh/tulle/model"
)

// patience bounds what ought to take no time.
const patience = 30 * time.Second

// fetchEnv, when set, makes the test binary ask the Workload API there and print what came of it.
const fetchEnv = "TULLE_TEST_WORKLOAD_FETCH"

func TestMain(m *testing.M) {
	if path := os.Getenv(fetchEnv); path != "" {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+path))
		if err == nil {
			_, err = c.FetchX509SVID(ctx)
		}
		fmt.Println(status.Code(err), err)
		return
	}
	os.Exit(m.Run())
}

var cart = spiffe.ID{TrustDomain: "tulle.local", Namespace: "shop", ServiceAccount: "cart"}

// rig is an authority and a server whose program is cart.
type rig struct {
	t      *testing.T
	ca     *ca.CA
	path   string
	listen *net.UnixListener
	server *workload.Server
	id     chan *svid.Rotator // the one that the server has obtained last
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "wl") // short: a unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, path: filepath.Join(dir, "w.sock"), id: make(chan *svid.Rotator, 8)}
	// With a life of 20 s a certificate that the mesh wants renewed is renewed within one.
	if r.ca, err = ca.Open(ca.Config{Dir: filepath.Join(dir, "ca"), Leaf: 20 * time.Second}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r.listen, err = net.ListenUnix("unix", &net.UnixAddr{Name: r.path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listen.Close() })
	r.serve(nil)
	return r
}

// serve serves the socket anew, as the next proxy does. refuse, if not nil, is asked before there is an identity.
func (r *rig) serve(refuse func() error) {
	f, err := r.listen.File()
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		r.t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s := workload.Serve(l, workload.Config{Obtain: func(ctx context.Context) (*svid.Rotator, error) {
		if refuse != nil {
			if err := refuse(); err != nil {
				return nil, err
			}
		}
		id, err := svid.NewRotator(ctx, svid.Config{Fetch: r.fetch})
		if err == nil {
			r.id <- id
		}
		return id, err
	}})
	r.server = s
	r.t.Cleanup(s.Close)
}

func (r *rig) fetch(context.Context, *svid.SVID) (*svid.SVID, error) {
	key, err := svid.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := svid.Request(key, cart)
	if err != nil {
		return nil, err
	}
	issued, err := r.ca.Sign(csr, cart, 0, time.Now())
	if err != nil {
		return nil, err
	}
	now, err := svid.New(key, issued.Chain, r.ca.RootsDER())
	if err == nil {
		now.Made = time.Now() // NotBefore is a minute ago: it would be renewed at once
	}
	return now, err
}

// believe tells the program's identity whom the mesh believes; it is renewed soon, too.
func (r *rig) believe(id *svid.Rotator, m *model.Trust) {
	r.t.Helper()
	t, err := svid.NewTrust(cart.TrustDomain, m)
	if err != nil {
		r.t.Fatal(err)
	}
	id.Believe(t)
}

func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) source() *workloadapi.X509Source {
	r.t.Helper()
	s, err := workloadapi.NewX509Source(r.context(), workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+r.path)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}

// raw is a client without the metadata.
func (r *rig) raw() pb.SpiffeWorkloadAPIClient {
	r.t.Helper()
	c, err := grpc.NewClient("unix://"+r.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return pb.NewSpiffeWorkloadAPIClient(c)
}

func (r *rig) meant() context.Context {
	return metadata.AppendToOutgoingContext(r.context(), "workload.spiffe.io", "true")
}

// await waits for a change of a source until is answers true.
func await(t *testing.T, s *workloadapi.X509Source, what string, is func() bool) {
	t.Helper()
	end := time.After(patience)
	for changed := s.Updated(); !is(); changed = s.Updated() {
		if is() {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// TestSource: go-spiffe gets the workload's identity, verifies it by the bundle that comes with it, and sees a rotation, a new
// root and a federated trust domain without asking again.
func TestSource(t *testing.T) {
	r := newRig(t)
	s := r.source()
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if first.ID.String() != cart.String() {
		t.Errorf("the program is %s", first.ID)
	}
	if _, _, err := x509svid.Verify(first.Certificates, s); err != nil {
		t.Errorf("the bundle does not verify it: %v", err)
	}
	id := <-r.id
	if key, ok := first.PrivateKey.(*ecdsa.PrivateKey); !ok || !key.Equal(id.Current().Certificate.PrivateKey) {
		t.Errorf("the key is not that of the certificate")
	}
	before := r.ca.RootsDER()[0]
	if err := r.ca.RotateRoot(time.Now()); err != nil {
		t.Fatal(err)
	}
	other, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: "other.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own := r.ca.RootsDER()
	r.believe(id, &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: own}, {TrustDomain: "other.example", Roots: other.RootsDER()}}})
	await(t, s, "two roots, and those of another mesh", func() bool {
		mine, err := s.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("tulle.local"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("other.example"))
		return len(mine.X509Authorities()) == 2 && err == nil
	})
	r.believe(id, &model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: own[:1]}}})
	await(t, s, "one root again", func() bool {
		mine, err := s.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("tulle.local"))
		return err == nil && len(mine.X509Authorities()) == 1 && string(mine.X509Authorities()[0].Raw) == string(before)
	})
	r.server.Close()
	r.serve(nil) // the next proxy, with a certificate of its own making
	await(t, s, "another certificate", func() bool {
		now, err := s.GetX509SVID()
		return err == nil && now.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0
	})
}

// TestRotationIsStreamed: a stream sees each new certificate, and a change that programs are not told of is not sent.
func TestRotationIsStreamed(t *testing.T) {
	r := newRig(t)
	stream, err := r.raw().FetchX509SVID(r.meant(), &pb.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *x509svid.SVID {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		s, err := x509svid.ParseRaw(m.GetSvids()[0].GetX509Svid(), m.GetSvids()[0].GetX509SvidKey())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, rounds := next(), 0
	id := <-r.id
	own := []model.TrustBundle{{TrustDomain: "tulle.local", Roots: r.ca.RootsDER()}}
	for i := range 3 {
		r.believe(id, &model.Trust{Stage: uint64(i), Bundles: own}) // nothing that a program sees
	}
	r.believe(id, &model.Trust{Renew: time.Now().Add(time.Hour).Unix(), Bundles: own}) // every certificate is too old from now on
	for last := first; rounds < 3; rounds++ {
		now := next()
		if now.ID != first.ID || now.Certificates[0].SerialNumber.Cmp(last.Certificates[0].SerialNumber) == 0 {
			t.Fatalf("told of %s again, or of another: %s", first.ID, now.ID)
		}
		last = now
	}
}

// TestRefused: calls without the metadata, JWT-SVIDs, more streams than there may be.
func TestRefused(t *testing.T) {
	r := newRig(t)
	c := r.raw()
	for name, ctx := range map[string]context.Context{
		"without": r.context(),
		"false":   metadata.AppendToOutgoingContext(r.context(), "workload.spiffe.io", "false"),
		"twice":   metadata.AppendToOutgoingContext(r.meant(), "workload.spiffe.io", "true"),
	} {
		s, err := c.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("metadata %s: %v", name, err)
		}
		b, err := c.FetchX509Bundles(ctx, &pb.X509BundlesRequest{})
		if err == nil {
			_, err = b.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("bundles, metadata %s: %v", name, err)
		}
		if _, err := c.FetchJWTSVID(ctx, &pb.JWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("JWT, metadata %s: %v", name, err)
		}
	}
	if _, err := c.FetchJWTSVID(r.meant(), &pb.JWTSVIDRequest{Audience: []string{"a"}}); status.Code(err) != codes.Unimplemented {
		t.Errorf("JWT-SVID: %v", err)
	}
	if _, err := c.ValidateJWTSVID(r.meant(), &pb.ValidateJWTSVIDRequest{Audience: "a", Svid: "x"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("JWT-SVID: %v", err)
	}
	j, err := c.FetchJWTBundles(r.meant(), &pb.JWTBundlesRequest{})
	if err == nil {
		_, err = j.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("JWT bundles: %v", err)
	}
}

// TestBounds: streams are bounded over all connections, and those that end make room.
func TestBounds(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(r.meant())
	one, two := r.raw(), r.raw()
	for i := range workload.MaxStreams {
		c := one
		if i%2 == 0 {
			c = two
		}
		s, err := c.FetchX509Bundles(ctx, &pb.X509BundlesRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	again := func() error {
		s, err := one.FetchX509Bundles(r.meant(), &pb.X509BundlesRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	if err := again(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	cancel()
	for end := time.Now().Add(patience); again() != nil; { // poll
		if time.Now().After(end) {
			t.Fatal("no room, although all streams have ended")
		}
	}
}

// TestNotYet: a call that comes before there is an identity waits, and gets it.
func TestNotYet(t *testing.T) {
	r := newRig(t)
	r.server.Close()
	tries := 0
	r.serve(func() error {
		if tries++; tries < 3 {
			return errors.New("the control plane is away")
		}
		return nil
	})
	if s, err := r.source().GetX509SVID(); err != nil || s.ID.String() != cart.String() || tries != 3 {
		t.Errorf("%v, %v after %d tries", s, err, tries)
	}
}

// TestStranger: a process of another network namespace gets nothing although the socket's file is open to it.
func TestStranger(t *testing.T) {
	r := newRig(t)
	for _, flags := range []uintptr{0, syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.Stderr = append(os.Environ(), fetchEnv+"="+r.path), t.Output()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: this test needs user namespaces (sysctl user.max_user_namespaces)", err)
		}
		if got := string(out); strings.HasPrefix(got, "OK") != (flags == 0) {
			t.Errorf("namespaces %x: %s", flags, got)
		}
	}
}
