package main

import (
	"fmt"

	"github.com/tulle-mesh/tulle/bench/load"
)

const haproxyConf = `global
  nbthread 2
  maxconn 12000
  no strict-limits
defaults
  mode %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind %s
  default_backend b
backend b
  %s
  server s %s
`

// startHAProxy serves everything; its TCP is mode tcp.
func startHAProxy(w *world, k load.Kind, t topology, backend string) (*running, error) {
	dir := w.options.dir
	server := " ssl crt " + dir + "/both.pem ca-file " + dir + "/ca.pem verify required ssl-min-ver TLSv1.3"
	client := " ssl crt " + dir + "/both.pem ca-file " + dir + "/ca.pem verify required verifyhost bench sni str(bench) ssl-min-ver TLSv1.3"
	var plainProto string
	switch k {
	case load.HTTP2, load.GRPCUnary, load.GRPCStream:
		plainProto, server, client = " proto h2", server+" alpn h2", client+" alpn h2"
	}
	one := func(name, bind, target string) (int, error) {
		mode, reuse := "http", "http-reuse always"
		if k == load.TCP {
			mode, reuse = "tcp", "option splice-auto"
		}
		return w.start("haproxy", "-db", "-f", w.file(name, fmt.Sprintf(haproxyConf, mode, bind, reuse, target)))
	}
	front := freePort()
	switch t {
	case plain:
		pid, err := one("plain.cfg", front+plainProto, backend+plainProto)
		return &running{address: front, pids: []int{pid}}, err
	case oneHop:
		pid, err := one("one.cfg", front+server, backend+plainProto)
		return &running{address: front, serverName: "bench", pids: []int{pid}}, err
	}
	back := freePort()
	b, err := one("back.cfg", back+server, backend+plainProto)
	if err != nil {
		return nil, err
	}
	if err := waitFor(back); err != nil {
		return nil, err
	}
	f, err := one("front.cfg", front+plainProto, back+client)
	return &running{address: front, pids: []int{f, b}}, err
}
