// Package shop is a small real shop to try the mesh on: seven services that know nothing of meshes and call each
// other by plain names. Each one is a process of its own, started with `shop <service>`.
//
//	load ─▶ web ─▶ catalog          HTTP
//	            ├▶ reviews (v1, v2)  HTTP
//	            ├▶ cart ─▶ kv        HTTP, then plain TCP
//	            └▶ checkout ─▶ cart  gRPC, then HTTP
//	                       └▶ payment  gRPC
//
// Start reading at Services; each service is one file.
package shop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Ports that the services listen on. Each instance has a network of its own, so the same port serves all.
const (
	HTTPPort = "8080"
	GRPCPort = "9000"
	KVPort   = "6379"
)

// Config is what one service needs to know.
type Config struct {
	Version string       // shown in answers, for example "v2"
	Logger  *slog.Logger // never nil
	Out     io.Writer    // results of the load generator
	Target  string       // load: base URL of the shop
	Rate    float64      // load: browsing sessions started per second
}

// Services answers each service's name and what runs it until ctx ends.
func Services() map[string]func(context.Context, Config) error {
	return map[string]func(context.Context, Config) error{
		"web": runWeb, "catalog": runCatalog, "reviews": runReviews, "cart": runCart,
		"checkout": runCheckout, "payment": runPayment, "kv": runKV, "load": runLoad,
	}
}

// Main runs the service that args names, until SIGTERM or SIGINT, and answers the exit code.
func Main(args []string, cfg Config) int {
	services := Services()
	names := strings.Join(slices.Sorted(maps.Keys(services)), ", ")
	if len(args) < 1 || len(args) > 2 {
		cfg.Logger.Error("usage: shop SERVICE [VERSION or, for load, URL]", "services", names)
		return 2
	}
	run, ok := services[args[0]]
	if !ok {
		cfg.Logger.Error("no such service", "service", args[0], "services", names)
		return 2
	}
	cfg.Version, cfg.Target, cfg.Rate = "v1", "http://web:"+HTTPPort, 20
	switch {
	case len(args) == 2 && args[0] == "load":
		cfg.Target = args[1]
	case len(args) == 2:
		cfg.Version = args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, cfg); err != nil && !errors.Is(err, context.Canceled) {
		cfg.Logger.Error("service ended", "service", args[0], "error", err)
		return 1
	}
	return 0
}

// serveHTTP serves mux on port until ctx ends, then finishes what is open.
func serveHTTP(ctx context.Context, port string, mux http.Handler) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(end)
}

// serveGRPC serves what register adds on port until ctx ends.
func serveGRPC(ctx context.Context, port string, register func(*grpc.Server)) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	register(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		srv.GracefulStop()
		return nil
	}
}

// dialGRPC answers a client connection to a service; its lookup is the system's own.
func dialGRPC(service string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+service+":"+GRPCPort, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// client is the HTTP client of the services.
func client() *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second},
	}
}

// fetch gets url and answers its body, an error for any status but 200.
func fetch(ctx context.Context, c *http.Client, method, url string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: status %d: %.200s", method, url, res.StatusCode, b)
	}
	return b, nil
}

func healthy(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
}

// Edge is one dependency between two services.
type Edge struct {
	Source, Destination string
	TCP                 bool // plain connections, not requests
}

// Edges answers every dependency of the shop: each carries traffic while the load generator runs.
func Edges() []Edge {
	return []Edge{
		{Source: "load", Destination: "web"},
		{Source: "web", Destination: "catalog"},
		{Source: "web", Destination: "reviews"},
		{Source: "web", Destination: "cart"},
		{Source: "web", Destination: "checkout"},
		{Source: "cart", Destination: "kv", TCP: true},
		{Source: "checkout", Destination: "cart"},
		{Source: "checkout", Destination: "payment"},
	}
}

// Instance is one process of the shop.
type Instance struct {
	Service, Version string
	Port             string // as `tulle run --port` takes it; "" for a pure client
	Ready            string // as `tulle run --ready` takes it
}

// Instances answers what a whole shop consists of, the load generator last.
func Instances() []Instance {
	http := func(service, version string) Instance {
		return Instance{service, version, HTTPPort + "/http", "http:/healthz"}
	}
	return []Instance{
		{"kv", "v1", KVPort, "tcp"},
		{"payment", "v1", GRPCPort + "/grpc", "tcp"},
		http("catalog", "v1"), http("catalog", "v1"),
		http("reviews", "v1"), http("reviews", "v2"),
		http("cart", "v1"),
		{"checkout", "v1", GRPCPort + "/grpc", "tcp"},
		http("web", "v1"),
		{"load", "v1", "", ""},
	}
}
