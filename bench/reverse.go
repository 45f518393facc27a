package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"github.com/tulle-mesh/tulle/bench/load"
)

// reverseConfig is one process with httputil.ReverseProxy: what thirty lines of Go give, with a connection pool and
// flushing that are not its handicap. TCP is io.Copy.
type reverseConfig struct {
	Listen, Target string
	Server, Client bool // TLS on that side
	HTTP2, TCP     bool
	Dir            string // of certificates
}

// startReverse serves everything.
func startReverse(w *world, k load.Kind, t topology, backend string) (*running, error) {
	one := func(c reverseConfig) (int, error) {
		c.Dir, c.TCP = w.options.dir, k == load.TCP
		c.HTTP2 = k == load.HTTP2 || k == load.GRPCUnary || k == load.GRPCStream
		text, err := json.Marshal(c)
		if err != nil {
			return 0, err
		}
		return w.start(os.Args[0], "-be", "reverse", string(text))
	}
	front := freePort()
	switch t {
	case plain:
		pid, err := one(reverseConfig{Listen: front, Target: backend})
		return &running{address: front, pids: []int{pid}}, err
	case oneHop:
		pid, err := one(reverseConfig{Listen: front, Target: backend, Server: true})
		return &running{address: front, serverName: "bench", pids: []int{pid}}, err
	}
	back := freePort()
	b, err := one(reverseConfig{Listen: back, Target: backend, Server: true})
	if err != nil {
		return nil, err
	}
	if err := waitFor(back); err != nil {
		return nil, err
	}
	f, err := one(reverseConfig{Listen: front, Target: back, Client: true})
	return &running{address: front, pids: []int{f, b}}, err
}

// serve is the process.
func (c *reverseConfig) serve() error {
	cfg, err := c.tls()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	if c.Server {
		l = tls.NewListener(l, cfg)
	}
	if c.TCP {
		return c.relay(l, cfg)
	}
	target := &url.URL{Scheme: "http", Host: c.Target}
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, Protocols: new(http.Protocols)}
	server := &http.Server{Protocols: new(http.Protocols)}
	if c.Client {
		target.Scheme, transport.TLSClientConfig = "https", cfg
	}
	if c.HTTP2 {
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		server.Protocols.SetHTTP2(true)
		server.Protocols.SetUnencryptedHTTP2(true)
	} else {
		transport.Protocols.SetHTTP1(true)
		server.Protocols.SetHTTP1(true)
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.Transport = transport
	if c.HTTP2 {
		p.FlushInterval = -1 // streams
	}
	server.Handler = p
	return server.Serve(l)
}

func (c *reverseConfig) tls() (*tls.Config, error) {
	if !c.Server && !c.Client {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Dir+"/leaf.pem", c.Dir+"/leaf.key")
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.Dir + "/ca.pem")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots, ServerName: "bench",
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	switch {
	case c.HTTP2:
		cfg.NextProtos = []string{"h2"}
	case c.TCP:
		cfg.NextProtos = nil
	}
	return cfg, nil
}

// relay copies bytes both ways, with splice(2) where the runtime can.
func (c *reverseConfig) relay(l net.Listener, cfg *tls.Config) error {
	for {
		down, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer down.Close()
			up, err := net.Dial("tcp", c.Target)
			if err != nil {
				return
			}
			if c.Client {
				up = tls.Client(up, cfg)
			}
			defer up.Close()
			go func() {
				_, _ = io.Copy(up, down) // ends with the connection
				_ = up.Close()
			}()
			_, _ = io.Copy(down, up) // likewise
		}()
	}
}
