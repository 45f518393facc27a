package main

import (
	"fmt"
	"os"

	"github.com/tulle-mesh/tulle/bench/load"
)

const (
	nginxHead = `worker_processes 2; daemon off; pid %[1]s/%[2]s.pid; error_log %[1]s/%[2]s.err; worker_rlimit_nofile 50000;
`
	nginxHTTP = `events { worker_connections 11000; }
http { access_log off; keepalive_requests 1000000000; http2_max_concurrent_streams 1024; client_max_body_size 0;
  upstream b { server %[4]s; keepalive 512; keepalive_requests 1000000000; }
  server { listen %[3]s; %[5]s
    location / { %[6]s } } }
`
	nginxStream = `load_module %[7]s;
events { worker_connections 11000; }
stream { upstream b { server %[4]s; } server { listen %[3]s; %[5]s proxy_pass b; %[6]s } }
`
)

// streamModules is where Debian's libnginx-mod-stream puts it.
const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// startNginx serves everything. It has no HTTP/2 towards servers but for gRPC, so grpc_pass carries that too.
func startNginx(w *world, k load.Kind, t topology, backend string) (*running, error) {
	dir := w.options.dir
	server := fmt.Sprintf("ssl_certificate %[1]s/leaf.pem; ssl_certificate_key %[1]s/leaf.key; ssl_client_certificate %[1]s/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;", dir)
	client := func(prefix string) string {
		return fmt.Sprintf("%[1]s_ssl_certificate %[2]s/leaf.pem; %[1]s_ssl_certificate_key %[2]s/leaf.key; %[1]s_ssl_trusted_certificate %[2]s/ca.pem; "+
			"%[1]s_ssl_verify on; %[1]s_ssl_name bench; %[1]s_ssl_server_name on; %[1]s_ssl_protocols TLSv1.3;", prefix, dir)
	}
	text, proto := nginxHead+nginxHTTP, ""
	pass, passTLS := `proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection "";`,
		`proxy_pass https://b; proxy_http_version 1.1; proxy_set_header Connection ""; `+client("proxy")
	switch k {
	case load.HTTP2, load.GRPCUnary, load.GRPCStream:
		proto, pass, passTLS = " http2", "grpc_pass grpc://b; grpc_socket_keepalive on;", "grpc_pass grpcs://b; "+client("grpc")
	case load.TCP:
		if _, err := os.Stat(streamModule); err != nil {
			return nil, fmt.Errorf("%w; install libnginx-mod-stream", err)
		}
		text, pass, passTLS = nginxHead+nginxStream, "", "proxy_ssl on; "+client("proxy")
	}
	one := func(name, listen, extra, target, pass string) (int, error) {
		return w.start("nginx", "-c", w.file(name+".conf", fmt.Sprintf(text+"# %[7]s\n", w.dir, name, listen, target, extra, pass, streamModule)))
	}
	front := freePort()
	switch t {
	case plain:
		pid, err := one("plain", front+proto, "", backend, pass)
		return &running{address: front, pids: []int{pid}}, err
	case oneHop:
		pid, err := one("one", front+" ssl"+proto, server, backend, pass)
		return &running{address: front, serverName: "bench", pids: []int{pid}}, err
	}
	back := freePort()
	b, err := one("back", back+" ssl"+proto, server, backend, pass)
	if err != nil {
		return nil, err
	}
	if err := waitFor(back); err != nil {
		return nil, err
	}
	f, err := one("front", front+proto, "", back, passTLS)
	return &running{address: front, pids: []int{f, b}}, err
}
