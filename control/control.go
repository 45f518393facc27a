package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/recall"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/server"
)

// Ports that a control plane listens on unless told otherwise.
const (
	DefaultHTTPListen = "127.0.0.1:7070"
	DefaultGRPCListen = "127.0.0.1:15012"
)

// Config of a control plane. DataDir is needed; the zero value of everything else is a default.
type Config struct {
	DataDir     string // made with mode 0700
	HTTPListen  string // API on TCP, with the admin token; "" DefaultHTTPListen
	GRPCListen  string // xDS and identity; "" DefaultGRPCListen
	TrustDomain string // "": that of the CA in DataDir, else of MeshConfig, else tulle.local

	// BundleListen is where the mesh's own bundle is served to other meshes (SPIFFE bundle endpoint, https_spiffe); "": nowhere.
	BundleListen string

	EtcdEndpoints                 []string // none: the embedded etcd under DataDir
	EtcdCACert, EtcdCert, EtcdKey string   // files

	// Takes tries a request on a route as the data plane does, so that no conflict is reported with a request that is routed
	// otherwise than the search believes; nil: the search is believed.
	Takes compile.Takes
	// How long identities of workloads, and what signs them, are valid; 0: ca.LeafTTL, ca.IntermediateTTL, ca.RootTTL. They
	// are replaced long before.
	IdentityTTL, IntermediateTTL, RootTTL time.Duration
	// Issuer says who signs them; the zero value: the mesh's own authority.
	Issuer Issuer

	// ConnectionsPerIdentity is how many connections one identity may have open here; 0: server.DefaultPerIdentity.
	ConnectionsPerIdentity int

	Version string       // of this program, for listings
	Logger  *slog.Logger // nil: nothing is logged
}

// Plane is a running control plane.
type Plane struct {
	cfg       Config
	log       *slog.Logger
	lock      *os.File
	store     store.Store
	ca        authority
	mesh      mesh
	trust     *trust.Keeper
	captures  captures
	federated *federate.Keeper
	believed  atomic.Pointer[model.Trust] // whom the mesh believes; nil: it is not known yet
	bundles   net.Listener                // nil: the mesh's bundle is not served
	open      *server.Connections         // of proxies
	recall    recall.Recall
	issuing   *issuing
	changed   transitions // of conditions
	streams   *server.Service
	started   time.Time
	http      net.Listener
	grpc      net.Listener
	closers   []func() // of what runs, in the order in which it was started
	serving   sync.WaitGroup
	closeOnce sync.Once
}

// Start starts a control plane and answers when it is ready: everything that it listens on accepts. ctx bounds
// the start only; Close ends what was started.
func Start(ctx context.Context, cfg Config) (*Plane, error) {
	p := &Plane{cfg: withDefaults(cfg), started: time.Now()}
	p.log = p.cfg.Logger
	if err := p.start(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func withDefaults(cfg Config) Config {
	if cfg.HTTPListen == "" {
		cfg.HTTPListen = DefaultHTTPListen
	}
	if cfg.GRPCListen == "" {
		cfg.GRPCListen = DefaultGRPCListen
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (p *Plane) start(ctx context.Context) (err error) {
	if err := p.openFolder(); err != nil {
		return err
	}
	// The ports come first: the commonest mistake is told before anything is written.
	if p.http, err = p.listen(p.cfg.HTTPListen, "--http-listen"); err != nil {
		return err
	}
	if p.grpc, err = p.listen(p.cfg.GRPCListen, "--grpc-listen"); err != nil {
		return err
	}
	if p.store, err = p.openStore(ctx); err != nil {
		return err
	}
	p.onClose(func() { p.store.Close() })
	if p.mesh, err = readMesh(ctx, p.store); err != nil {
		return err
	}
	domain := p.cfg.TrustDomain
	if domain == "" {
		domain = p.mesh.trustDomain
	}
	if p.ca, err = p.openAuthority(ctx, domain); err != nil {
		return err
	}
	p.issuing = &issuing{Authority: p.ca}
	return p.compose(ctx)
}

func (p *Plane) openStore(ctx context.Context) (store.Store, error) {
	if len(p.cfg.EtcdEndpoints) == 0 {
		return etcd.Embed(ctx, filepath.Join(p.cfg.DataDir, "etcd"), p.log)
	}
	return etcd.Dial(ctx, etcd.Config{Endpoints: p.cfg.EtcdEndpoints, CACert: p.cfg.EtcdCACert, Cert: p.cfg.EtcdCert, Key: p.cfg.EtcdKey, Log: p.log})
}

// listen opens a TCP port.
func (p *Plane) listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w: choose another with %s", address, cause(err), flag)
	}
	p.onClose(func() { l.Close() })
	return l, nil
}

// cause answers the innermost error of a network operation, which repeats nothing.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// serve runs an HTTP server until Close.
func (p *Plane) serve(s *http.Server, l net.Listener) {
	p.serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("the API ended", "address", l.Addr().String(), "error", err)
		}
	})
	p.onClose(func() {
		// Waits that are under way are not waited for.
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	})
}

// serveGRPC runs a gRPC server until Close. Streams end with it: proxies come back by themselves.
func (p *Plane) serveGRPC(g *grpc.Server, l net.Listener) {
	p.serving.Go(func() {
		if err := g.Serve(l); err != nil {
			p.log.Error("the port for proxies ended", "address", l.Addr().String(), "error", err)
		}
	})
	p.onClose(g.Stop)
}

func (p *Plane) onClose(f func()) { p.closers = append(p.closers, f) }

// Close ends everything, the last started first, and waits for it. It is idempotent.
func (p *Plane) Close() error {
	p.closeOnce.Do(func() {
		for i := len(p.closers) - 1; i >= 0; i-- {
			p.closers[i]()
		}
		p.serving.Wait()
	})
	return nil
}

// HTTPAddress is where the API listens on TCP.
func (p *Plane) HTTPAddress() string { return p.http.Addr().String() }

// GRPCAddress is where proxies connect.
func (p *Plane) GRPCAddress() string { return p.grpc.Addr().String() }

// BundleAddress is where the mesh's own bundle is served, "" where it is not.
func (p *Plane) BundleAddress() string {
	if p.bundles == nil {
		return ""
	}
	return p.bundles.Addr().String()
}

// TrustDomain is that of every identity in the mesh.
func (p *Plane) TrustDomain() string { return p.ca.TrustDomain() }

// info is what the API says about this process.
func (p *Plane) info() httpapi.Info {
	where := "embedded etcd"
	if len(p.cfg.EtcdEndpoints) > 0 {
		where = "etcd at " + strings.Join(p.cfg.EtcdEndpoints, ",")
	}
	return httpapi.Info{Version: p.cfg.Version, TrustDomain: p.ca.TrustDomain(), Store: where, DataDir: p.cfg.DataDir,
		HTTP: p.HTTPAddress(), GRPC: p.GRPCAddress(), PID: os.Getpid(), Started: p.started}
}
