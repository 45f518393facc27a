package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/ready"
	"github.com/tulle-mesh/tulle/model"
)

// runFlags are the flags of tulle run as written.
type runFlags struct {
	service, namespace, version, account string
	labels, ports, publish, forward      []string
	ready                                string
	waitFor, exclude, resolvers          []string
	dataDir, token, control, address     string
	metrics                              string
	accessLog, workloadAPI, failClosed   bool
	workers                              int
}

// Bounds: what the control plane takes of one workload, and how many sockets travel to a proxy (a forwarded port has two).
const maxPorts, maxLabels = 64, 64

func atMost(flag string, n, most int) error {
	if n > most {
		return fmt.Errorf("%s is given %d times: at most %d", flag, n, most)
	}
	return nil
}

// maxWorkload bounds a workload's name: it is one label of the SNI between proxies.
const maxWorkload = 63

// bootstrap reads the flags. random is the end of the workload's name. It touches no file and no network.
func (f *runFlags) bootstrap(random string) (b bootstrap.Bootstrap, err error) {
	if f.service == "" {
		return b, errors.New("--service is missing: name the service that this program is part of, for example --service reviews")
	}
	for _, n := range []struct{ flag, value string }{{"--service", f.service}, {"--namespace", f.namespace}, {"--service-account", f.account}} {
		if !isLabel(n.value) && (n.flag != "--service-account" || n.value != "") {
			return b, fmt.Errorf("%s %q: a name has lower-case letters, digits and '-', and at most 63 of them", n.flag, n.value)
		}
	}
	if !isLabelValue(f.version) {
		return b, fmt.Errorf("--version %q: a version has letters, digits, '-', '_' and '.', and at most 63 of them", f.version)
	}
	b = bootstrap.Bootstrap{
		Workload: workloadName(f.service, f.version, random), Namespace: f.namespace, Service: f.service, Version: f.version,
		ServiceAccount: f.account, Labels: map[string]string{}, Ready: f.ready, WaitFor: f.waitFor,
		DataDir: f.dataDir, Address: f.address, AccessLog: f.accessLog, FailClosed: f.failClosed, Workers: f.workers,
	}
	if b.ServiceAccount == "" {
		b.ServiceAccount = f.service
	}
	if f.workers < 0 || f.workers > 64 {
		return b, fmt.Errorf("--workers %d: between 1 and 64 event loops, or 0 for the default", f.workers)
	}
	for _, parse := range []func(*bootstrap.Bootstrap) error{f.parseLabels, f.parsePorts, f.parsePublish, f.parseForward, f.parseExclude, f.parseResolvers, f.parseReady, f.parseMetrics, f.parseControl} {
		if err := parse(&b); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (f *runFlags) parseLabels(b *bootstrap.Bootstrap) error {
	for _, s := range f.labels {
		k, v, ok := strings.Cut(s, "=")
		if !ok || !isLabelKey(k) || !isLabelValue(v) {
			return fmt.Errorf("--label %q: write KEY=VALUE with letters, digits, '-', '_' and '.', at most 63 of them on each side", s)
		}
		if k == model.LabelShards {
			if _, err := model.ParseShards(v, model.MaxSlots); err != nil {
				return fmt.Errorf("--label %q: %w", s, err)
			}
		}
		b.Labels[k] = v
	}
	return atMost("--label", len(b.Labels), maxLabels)
}

// parsePorts reads [NAME=]PORT[:TARGET][/PROTOCOL].
func (f *runFlags) parsePorts(b *bootstrap.Bootstrap) error {
	for _, s := range f.ports {
		bad := func(why string) error {
			return fmt.Errorf("--port %q: %s; write [NAME=]PORT[:TARGET][/http|grpc|tcp|tls]", s, why)
		}
		var p bootstrap.Port
		rest, proto, declared := strings.Cut(s, "/")
		if name, r, ok := strings.Cut(rest, "="); ok {
			if !isLabel(name) {
				return bad("not a name: " + strconv.Quote(name))
			}
			p.Name, rest = name, r
		}
		switch proto {
		case "http", "grpc", "tcp", "tls":
			p.Protocol = proto
		default:
			if declared {
				return bad("not a protocol: " + strconv.Quote(proto))
			}
		}
		port, target, two := strings.Cut(rest, ":")
		var ok bool
		if p.Port, ok = portNumber(port); !ok {
			return bad("not a port: " + strconv.Quote(port))
		}
		if p.Target = p.Port; two {
			if p.Target, ok = portNumber(target); !ok {
				return bad("not a port: " + strconv.Quote(target))
			}
		}
		if p.Target == bootstrap.OutboundPort || p.Target == bootstrap.DNSPort {
			return bad(fmt.Sprintf("%d is tulle's own in the program's namespace", p.Target))
		}
		for _, q := range b.Ports {
			if q.Port == p.Port {
				return bad("given twice")
			}
			if p.Name != "" && q.Name == p.Name {
				return bad("name given twice")
			}
		}
		b.Ports = append(b.Ports, p)
	}
	return atMost("--port", len(b.Ports), maxPorts)
}

// parsePublish reads [HOST:]PORT[=SERVICEPORT]. Without a host the machine's loopback is meant.
func (f *runFlags) parsePublish(b *bootstrap.Bootstrap) error {
	for _, s := range f.publish {
		listen, to, given := strings.Cut(s, "=")
		if !strings.Contains(listen, ":") {
			listen = "127.0.0.1:" + listen
		}
		bad := func(why string) error {
			return fmt.Errorf("--publish %q: %s; write [HOST:]PORT[=SERVICEPORT]", s, why)
		}
		_, port, err := net.SplitHostPort(listen)
		n, ok := portNumber(port)
		if err != nil || !ok && port != "0" {
			return bad("no port to listen on")
		}
		p := bootstrap.Publish{Listen: listen}
		switch {
		case len(b.Ports) == 0:
			return bad("the workload has no --port to publish")
		case given:
			if p.Port, ok = portNumber(to); !ok || !hasPort(b, p.Port) {
				return bad(fmt.Sprintf("%s is not a --port of the workload", to))
			}
		case len(b.Ports) == 1:
			p.Port = b.Ports[0].Port
		case hasPort(b, n):
			p.Port = n
		default:
			return bad("the workload has several ports: say which")
		}
		b.Publish = append(b.Publish, p)
	}
	return atMost("--publish", len(b.Publish), maxPorts)
}

// parseForward reads PORT[=HOST:PORT]. Without a target it is the same port on the machine's loopback.
func (f *runFlags) parseForward(b *bootstrap.Bootstrap) error {
	for _, s := range f.forward {
		bad := func(why string) error {
			return fmt.Errorf("--forward %q: %s; write PORT[=HOST:PORT]", s, why)
		}
		port, target, given := strings.Cut(s, "=")
		n, ok := portNumber(port)
		if !ok {
			return bad("not a port: " + strconv.Quote(port))
		}
		if !given {
			target = "127.0.0.1:" + port
		}
		host, tp, err := net.SplitHostPort(target)
		if _, ok := portNumber(tp); err != nil || !ok || host == "" {
			return bad("not an address: " + strconv.Quote(target))
		}
		switch {
		case n == bootstrap.OutboundPort || n == bootstrap.DNSPort || n == 53:
			return bad("this port is tulle's own in the program's namespace")
		case hasTarget(b, n):
			return bad("the program itself listens there (--port)")
		}
		for _, q := range b.Forward {
			if q.Listen == n {
				return bad("given twice")
			}
		}
		b.Forward = append(b.Forward, bootstrap.Forward{Listen: n, Target: target})
	}
	return atMost("--forward", len(b.Forward), maxPorts)
}

func (f *runFlags) parseExclude(b *bootstrap.Bootstrap) error {
	for _, s := range f.exclude {
		if n, ok := portNumber(s); ok {
			b.Exclude = append(b.Exclude, bootstrap.Exclude{Port: n})
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return fmt.Errorf("--exclude %q: write an address, a prefix such as 10.0.0.0/8, or a port", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		b.Exclude = append(b.Exclude, bootstrap.Exclude{Prefix: p.Masked()})
	}
	return nil
}

// maxResolvers is how many name servers are asked.
const maxResolvers = 3

// parseResolvers reads ADDRESS[:PORT].
func (f *runFlags) parseResolvers(b *bootstrap.Bootstrap) error {
	for _, s := range f.resolvers {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			var only netip.Addr
			if only, err = netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
				a = netip.AddrPortFrom(only, 53)
			}
		}
		if err != nil || a.Port() == 0 {
			return fmt.Errorf("--resolver %q: write the address of a name server, such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53", s)
		}
		b.ResolvConf += "nameserver " + a.String() + "\n"
	}
	return atMost("--resolver", len(f.resolvers), maxResolvers)
}

func (f *runFlags) parseReady(b *bootstrap.Bootstrap) error {
	var target uint16
	if len(b.Ports) > 0 {
		target = b.Ports[0].Target
	}
	_, err := ready.Parse(f.ready, target)
	return err
}

// parseMetrics reads [HOST:]PORT as parsePublish does.
func (f *runFlags) parseMetrics(b *bootstrap.Bootstrap) error {
	if f.metrics == "" {
		return nil
	}
	listen := f.metrics
	if !strings.Contains(listen, ":") {
		listen = "127.0.0.1:" + listen
	}
	_, port, err := net.SplitHostPort(listen)
	if _, ok := portNumber(port); err != nil || !ok && port != "0" {
		return fmt.Errorf("--metrics %q: no port to listen on; write [HOST:]PORT", f.metrics)
	}
	b.Metrics = listen
	return nil
}

func (f *runFlags) parseControl(b *bootstrap.Bootstrap) error {
	for _, s := range f.waitFor {
		name, ns, two := strings.Cut(s, ".")
		if !isLabel(name) || two && !isLabel(ns) {
			return fmt.Errorf("--wait-for %q: write SERVICE or SERVICE.NAMESPACE", s)
		}
	}
	if f.address != "" {
		if _, err := netip.ParseAddr(f.address); err != nil {
			return fmt.Errorf("--address %q: write an IP address of this machine", f.address)
		}
	}
	if f.control == "" {
		if f.token != "" {
			return errors.New("--token joins a control plane on another machine: say which with --control HOST:PORT")
		}
		b.Control.Socket = bootstrap.ControlSocket(f.dataDir)
		return nil
	}
	host, port, err := net.SplitHostPort(f.control)
	if err != nil { // a host alone
		host, port = strings.Trim(f.control, "[]"), "15012"
	}
	if _, ok := portNumber(port); !ok || host == "" {
		return fmt.Errorf("--control %q: write HOST or HOST:PORT", f.control)
	}
	if f.token == "" {
		return errors.New("--control needs --token: make one with 'tulle token --service NAME' where the control plane runs")
	}
	b.Control.Address, b.Control.Token = net.JoinHostPort(host, port), f.token
	return nil
}

// workloadName makes service[-version]-random, short enough for one DNS label.
func workloadName(service, version, random string) string {
	name := service
	if version != "" {
		name += "-" + version
	}
	name = strings.Map(func(r rune) rune {
		if r == '.' || r == '_' {
			return '-'
		}
		return r
	}, strings.ToLower(name))
	if most := maxWorkload - 1 - len(random); len(name) > most {
		name = name[:most]
	}
	return strings.TrimRight(name, "-") + "-" + random
}

// endpoint answers where the program finds its Workload API: in the outermost of the folders that are hidden from it.
func (f *runFlags) endpoint(hide []string) string {
	if !f.workloadAPI {
		return ""
	}
	dir := hide[0]
	if d := hides(hide[1:], dir); d != "" {
		dir = d
	}
	return filepath.Join(dir, "workload.sock")
}

// hides answers the folder in dirs that path lies in, or "".
func hides(dirs []string, path string) string {
	for _, d := range dirs {
		if rel, err := filepath.Rel(d, path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return d
		}
	}
	return ""
}

func hasPort(b *bootstrap.Bootstrap, n uint16) bool {
	for _, p := range b.Ports {
		if p.Port == n {
			return true
		}
	}
	return false
}

func hasTarget(b *bootstrap.Bootstrap, n uint16) bool {
	for _, p := range b.Ports {
		if p.Target == n {
			return true
		}
	}
	return false
}

func portNumber(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}

// isLabel reports whether s is a DNS label (RFC 1123) in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// isLabelKey reports whether s may be the key of a Kubernetes label: a name, after a domain and '/' or not.
func isLabelKey(s string) bool {
	domain, name, two := strings.Cut(s, "/")
	if !two {
		domain, name = "", s
	}
	for _, label := range strings.Split(domain, ".") {
		if two && !isLabel(label) {
			return false
		}
	}
	return name != "" && isLabelValue(name) && len(s) <= 253
}

// isLabelValue reports whether s may be the value of a Kubernetes label.
func isLabelValue(s string) bool {
	if s == "" {
		return true
	}
	alnum := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }
	if len(s) > 63 || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
