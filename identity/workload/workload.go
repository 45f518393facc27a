// Package workload serves the SPIFFE Workload API to one program: X.509-SVIDs and bundles, live, over a unix socket that only
// this program can reach. It promises that a program gets its own workload's identity and no other, that whoever is in
// another network namespace than the socket's maker gets nothing, and that streams are told of every rotation. It makes no
// key and signs nothing: Config.Obtain does. JWT-SVIDs are answered with UNIMPLEMENTED, since the mesh's authority signs none.
// Safe for concurrent use; one goroutine, and one for each stream, ended by Close. Start reading at Config, then Serve.
package workload

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/svid"
)

// Bounds of what one program may have open, and times.
const (
	MaxConnections = 64
	MaxStreams     = 128 // on all of its connections
	maxRequest     = 16 << 10
	helloTimeout   = 5 * time.Second
	writeStuck     = 20 * time.Second // a client that acknowledges nothing is gone

	firstObtain, laterObtain = 100 * time.Millisecond, 10 * time.Second // between two tries
)

// Config of a Server; Obtain is needed.
type Config struct {
	// Obtain answers an identity of the program's own: that of its workload, with another key than the proxy's. The server
	// closes it. It is tried again until it succeeds.
	Obtain func(ctx context.Context) (*svid.Rotator, error)
	Log    *slog.Logger
}

// Server is what Serve has begun.
type Server struct {
	pb.UnimplementedSpiffeWorkloadAPIServer
	cfg  Config
	grpc *grpc.Server
	stop context.CancelFunc
	ends <-chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	now     *svid.SVID    // nil: there is none yet
	changed chan struct{} // closed when now is another one
	streams int
}

// Serve begins to serve on l, a listener of a unix socket, and takes it over.
func Serve(l net.Listener, cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, stop: stop, ends: ctx.Done(), changed: make(chan struct{})}
	s.grpc = grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream), grpc.MaxRecvMsgSize(maxRequest),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10), grpc.ConnectionTimeout(helloTimeout), grpc.MaxConcurrentStreams(MaxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Timeout: writeStuck}))
	pb.RegisterSpiffeWorkloadAPIServer(s.grpc, s)
	s.done.Go(func() { s.obtain(ctx) })
	s.done.Go(func() {
		if err := s.grpc.Serve(own(l, cfg.Log)); err != nil && ctx.Err() == nil {
			cfg.Log.Error("the Workload API is not served any more", "error", err)
		}
	})
	return s
}

// Close ends every stream (clients see UNAVAILABLE, and connect again to whoever serves the socket next) and the listener.
// The socket itself stays where it is.
func (s *Server) Close() {
	s.stop()
	s.grpc.Stop()
	s.done.Wait()
}

// obtain gets the program's identity and passes on every later one.
func (s *Server) obtain(ctx context.Context) {
	for pause := firstObtain; ; pause = min(2*pause, laterObtain) {
		r, err := s.cfg.Obtain(ctx)
		if err == nil {
			r.Tell(s.tell)
			<-ctx.Done()
			r.Close()
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.Warn("the program has no certificate of its own yet, its calls of the Workload API wait", "error", err, "again_in", pause.String())
		t := time.NewTimer(time.Duration(float64(pause) * (0.7 + 0.6*rand.Float64())))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (s *Server) tell(now *svid.SVID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
	close(s.changed)
	s.changed = make(chan struct{})
}

// follow calls send with what there is, if there is anything, and again when it has changed, until send fails or ctx ends.
func (s *Server) follow(ctx context.Context, send func(*svid.SVID) error) error {
	for {
		s.mu.Lock()
		now, changed := s.now, s.changed
		s.mu.Unlock()
		if now != nil {
			if err := send(now); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.ends:
			return status.Error(codes.Unavailable, "the proxy is being replaced or ends: connect again")
		}
	}
}

// unary refuses calls that do not prove that they are meant for a Workload API.
func (s *Server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := meant(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// stream does the same, and bounds how many there are.
func (s *Server) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := meant(ss.Context()); err != nil {
		return err
	}
	s.mu.Lock()
	if s.streams >= MaxStreams {
		s.mu.Unlock()
		return status.Errorf(codes.ResourceExhausted, "%d streams are open already: share one, or end others", MaxStreams)
	}
	s.streams++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.streams--
		s.mu.Unlock()
	}()
	return next(srv, ss)
}

// meant reports calls without the metadata that no browser and no relay adds by itself (SPIFFE Workload Endpoint, section 4.1).
func meant(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("workload.spiffe.io"); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, `security header missing from request: send metadata "workload.spiffe.io: true"`)
	}
	return nil
}
