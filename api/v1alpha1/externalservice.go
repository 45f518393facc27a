package v1alpha1

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
)

// ExternalService is a service outside of the mesh: programs call its hosts by name, and their own proxies find it, balance,
// limit, encrypt and count as they do for a Service. Routes and policies name it with group tulle.dev, kind ExternalService.
type ExternalService struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       ExternalServiceSpec   `json:"spec,omitempty"`
	Status     ExternalServiceStatus `json:"status,omitempty"`
}

// ExternalServiceSpec is where the service is and what is spoken there.
type ExternalServiceSpec struct {
	// Hosts are at most 32 names that programs call it by: api.example.com, or *.example.com for every name below.
	Hosts []string `json:"hosts"`
	// Ports are at most 16, with different numbers.
	Ports []ExternalPort `json:"ports"`
	// Resolution is DNS (the caller's proxy looks the endpoints, or else the one host, up again and again), Static (endpoints
	// are addresses) or Original (the program's own look-up stands; what it then asks for must be one of the hosts). Default:
	// Static where all endpoints are addresses, Original for several hosts or a wildcard without endpoints, otherwise DNS.
	Resolution string `json:"resolution,omitempty"`
	// Refresh is how often DNS is asked, 1s to 1h. Default 30s; what the answer says may be kept counts where it is shorter.
	Refresh Duration `json:"refresh,omitempty"`
	// Endpoints are at most 64 that serve every host.
	Endpoints []ExternalEndpoint `json:"endpoints,omitempty"`
	// ExportTo are the namespaces whose workloads may call it, * for all. Default: its own; all for the namespace tulle-system.
	ExportTo []string `json:"exportTo,omitempty"`
}

// ExternalPort is one port of an ExternalService.
type ExternalPort struct {
	// Name is needed when there is more than one port.
	Name string `json:"name,omitempty"`
	// Port that programs call.
	Port int32 `json:"port"`
	// Protocol that programs speak: http, grpc, tcp or tls (their own, of which the server name is read).
	Protocol string `json:"protocol"`
	// TargetPort of the endpoints. Default: port.
	TargetPort int32 `json:"targetPort,omitempty"`
	// TLS is begun by the caller's proxy, for programs that speak in the clear.
	TLS *ExternalTLS `json:"tls,omitempty"`
}

// ExternalTLS is how the caller's proxy proves who it is, and whom it accepts. There is no way to accept anybody.
type ExternalTLS struct {
	// ServerName is sent as SNI. Default: the host, or of several the one that the request names.
	ServerName string `json:"serverName,omitempty"`
	// SubjectAltNames: the certificate must have one of them. Default: the server name.
	SubjectAltNames []string `json:"subjectAltNames,omitempty"`
	// CACertificates is PEM. Default: those that the caller's machine trusts.
	CACertificates string `json:"caCertificates,omitempty"`
	// CertificateFile and KeyFile are absolute paths of PEM files on the callers' machines, read again when they change. The
	// control plane never sees what is in them.
	CertificateFile string `json:"certificateFile,omitempty"`
	// KeyFile is the private key of CertificateFile.
	KeyFile string `json:"keyFile,omitempty"`
}

// ExternalEndpoint is one place that serves an ExternalService.
type ExternalEndpoint struct {
	// Address is an IP address, or a name with resolution DNS.
	Address string `json:"address"`
	// Port instead of the targetPort, where the service has one port.
	Port int32 `json:"port,omitempty"`
	// Weight is 1 to 1000. Default 1.
	Weight int32 `json:"weight,omitempty"`
}

// ExternalServiceStatus is what the control plane says about an ExternalService.
type ExternalServiceStatus struct {
	// Addresses that its hosts have inside the mesh.
	Addresses []string `json:"addresses,omitempty"`
	// Conditions are Accepted and Programmed, with the count of proxies that call it.
	Conditions []Condition `json:"conditions,omitempty"`
}

// ExternalKind is the kind of an ExternalService, of the group TulleGroup.
const ExternalKind = "ExternalService"

// Resolutions of an ExternalService.
const (
	ResolutionDNS      = "DNS"
	ResolutionStatic   = "Static"
	ResolutionOriginal = "Original"
)

// Bounds of an ExternalService.
const (
	maxExternalHosts     = 32
	maxExternalPorts     = 16
	maxExternalEndpoints = 64
	maxExternalWeight    = 1000
	maxExportTo          = 64
	maxCACertificates    = 64 << 10 // bytes
	maxFilePath          = 1024
)

// DefaultExternalRefresh is how often names are asked for.
const DefaultExternalRefresh Duration = "30s"

func defaultExternalService(o *ExternalService) {
	s := &o.Spec
	for i := range s.Hosts {
		s.Hosts[i] = strings.ToLower(strings.TrimSuffix(s.Hosts[i], "."))
	}
	if s.Resolution == "" {
		s.Resolution = ResolutionDNS
		name := func(e ExternalEndpoint) bool { _, err := netip.ParseAddr(e.Address); return err != nil }
		switch {
		case len(s.Endpoints) == 0 && (len(s.Hosts) > 1 || slices.ContainsFunc(s.Hosts, wildcard)):
			s.Resolution = ResolutionOriginal
		case len(s.Endpoints) > 0 && !slices.ContainsFunc(s.Endpoints, name):
			s.Resolution = ResolutionStatic
		}
	}
	if s.Refresh == "" {
		s.Refresh = DefaultExternalRefresh
	}
	if len(s.ExportTo) == 0 {
		s.ExportTo = []string{o.Namespace}
		if o.Namespace == RootNamespace {
			s.ExportTo = []string{"*"}
		}
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		p.TargetPort = cmp.Or(p.TargetPort, p.Port)
		if t := p.TLS; t != nil && t.ServerName == "" && len(s.Hosts) == 1 && !wildcard(s.Hosts[0]) {
			t.ServerName = s.Hosts[0]
		}
	}
	for i := range s.Endpoints {
		s.Endpoints[i].Weight = cmp.Or(s.Endpoints[i].Weight, 1)
	}
}

func wildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// Visible reports whether the workloads of a namespace may call an ExternalService.
func (o *ExternalService) Visible(namespace string) bool {
	return slices.Contains(o.Spec.ExportTo, "*") || slices.Contains(o.Spec.ExportTo, namespace)
}

func (c *check) externalService(o *ExternalService) {
	s := &o.Spec
	c.externalHosts(s.Hosts)
	c.externalPorts(s)
	c.span("spec.refresh", s.Refresh, time.Second, time.Hour)
	c.resolution(s)
	c.count("spec.exportTo", len(s.ExportTo), maxExportTo)
	for i, ns := range s.ExportTo {
		if ns != "*" && !label(ns) {
			c.fail(fmt.Sprintf("spec.exportTo[%d]", i), "%q is not a namespace: write one, or * for all", ns)
		}
	}
}

func (c *check) externalHosts(hosts []string) {
	if n := len(hosts); n == 0 || n > maxExternalHosts {
		c.fail("spec.hosts", "has %d entries: write 1 to %d", n, maxExternalHosts)
	}
	for i, h := range hosts {
		at := fmt.Sprintf("spec.hosts[%d]", i)
		name := strings.TrimPrefix(h, "*.")
		_, err := netip.ParseAddr(h)
		switch {
		case err == nil:
			c.fail(at, "%q is an address: write the name that programs call, and the address in spec.endpoints", h)
		case !hostname(name) || wildcard(h) && !strings.Contains(name, "."):
			c.fail(at, "%q is not a host: write a name such as api.example.com, or *.example.com", h)
		case !strings.Contains(name, "."), strings.HasSuffix(name, ".cluster.local"), strings.HasSuffix(name, ".localhost"):
			c.fail(at, "%q is a name inside of the mesh or of the machine: write the full name of a host outside", h)
		case slices.Contains(hosts[:i], h):
			c.fail(at, "%q is named twice: remove one", h)
		}
	}
}

// hostname is labels of 1 to 63 with dots between them, as DNS has them.
func hostname(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(l string) bool {
		return !only(l, lower+digits+"-_", lower+digits+"_", 63)
	})
}

func (c *check) externalPorts(s *ExternalServiceSpec) {
	if n := len(s.Ports); n == 0 || n > maxExternalPorts {
		c.fail("spec.ports", "has %d entries: write 1 to %d", n, maxExternalPorts)
	}
	names, numbers := map[string]bool{}, map[int32]bool{}
	for i := range s.Ports {
		p, at := &s.Ports[i], fmt.Sprintf("spec.ports[%d]", i)
		switch {
		case p.Name == "" && len(s.Ports) > 1:
			c.fail(at+".name", "is missing: an ExternalService with several ports names each of them")
		case p.Name != "" && !label(p.Name):
			c.fail(at+".name", "%q is not the name of a port: at most 63 of a-z, 0-9 and '-'", p.Name)
		case p.Name != "" && names[p.Name]:
			c.fail(at+".name", "%q is used twice", p.Name)
		}
		if numbers[p.Port] {
			c.fail(at+".port", "%d is used twice", p.Port)
		}
		names[p.Name], numbers[p.Port] = true, true
		c.between(at+".port", int64(p.Port), 1, 65535)
		c.between(at+".targetPort", int64(p.TargetPort), 1, 65535)
		switch p.Protocol {
		case "http", "grpc", "tcp", "tls":
		default:
			c.fail(at+".protocol", "%q is not known: write http, grpc, tcp or tls", p.Protocol)
		}
		if p.TLS != nil {
			c.externalTLS(at+".tls", p, s)
		}
	}
}

func (c *check) externalTLS(at string, p *ExternalPort, s *ExternalServiceSpec) {
	t := p.TLS
	if p.Protocol == "tls" {
		c.fail(at, "is for programs that speak in the clear, and the protocol is tls: write http, grpc or tcp, or remove tls")
	}
	if t.ServerName != "" && !hostname(t.ServerName) {
		c.fail(at+".serverName", "%q is not the name of a host", t.ServerName)
	}
	if t.ServerName == "" && p.Protocol == "tcp" {
		c.fail(at+".serverName", "is missing: of several hosts nothing says which one a TCP connection means")
	}
	c.count(at+".subjectAltNames", len(t.SubjectAltNames), maxEntries)
	for i, n := range t.SubjectAltNames {
		if !hostname(strings.TrimPrefix(n, "*.")) && !spiffeID(n) {
			c.fail(fmt.Sprintf("%s.subjectAltNames[%d]", at, i), "%q is neither the name of a host nor a SPIFFE ID", n)
		}
	}
	if t.CACertificates != "" {
		c.certificates(at+".caCertificates", t.CACertificates)
	}
	if (t.CertificateFile == "") != (t.KeyFile == "") {
		c.fail(at+".keyFile", "and certificateFile belong together: write both, or none")
	}
	for name, f := range map[string]string{"certificateFile": t.CertificateFile, "keyFile": t.KeyFile} {
		if f != "" {
			c.file(at+"."+name, f, "/etc/tulle/pay.pem")
		}
	}
}

// file checks the path of a file on the machines of workloads.
func (c *check) file(at, f, such string) {
	if !path.IsAbs(f) || path.Clean(f) != f || len(f) > maxFilePath || strings.ContainsFunc(f, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		c.fail(at, "%q is not an absolute path without detours, such as %s", f, such)
	}
}

func spiffeID(s string) bool {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	return ok && len(s) <= 2048 && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func (c *check) certificates(at, text string) {
	if len(text) > maxCACertificates {
		c.fail(at, "has %d bytes: at most %d are taken", len(text), maxCACertificates)
		return
	}
	n := 0
	for rest := []byte(text); ; n++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			c.fail(at, "holds a %s: only certificates belong here", b.Type)
			return
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			c.fail(at, "certificate %d cannot be read: %v", n+1, err)
			return
		}
	}
	if n == 0 {
		c.fail(at, "holds no certificate: write the PEM of the authority, not the name of a file")
	}
}

// resolution checks that endpoints can be found the way that is asked for.
func (c *check) resolution(s *ExternalServiceSpec) {
	c.count("spec.endpoints", len(s.Endpoints), maxExternalEndpoints)
	wild := slices.ContainsFunc(s.Hosts, wildcard)
	switch s.Resolution {
	case ResolutionDNS:
		if len(s.Endpoints) == 0 && (wild || len(s.Hosts) > 1) {
			c.fail("spec.resolution", "is DNS, and without endpoints that needs exactly one host without a wildcard: name endpoints, or write Original")
		}
	case ResolutionStatic:
		if len(s.Endpoints) == 0 {
			c.fail("spec.endpoints", "is empty, and resolution is Static: write addresses")
		}
	case ResolutionOriginal:
		if len(s.Endpoints) > 0 {
			c.fail("spec.endpoints", "have no meaning with resolution Original: remove them, or write DNS or Static")
		}
		for i, p := range s.Ports {
			if p.Protocol == "tcp" {
				c.fail(fmt.Sprintf("spec.ports[%d].protocol", i), "is tcp, and with resolution Original what a program asks for must name the host: write http, grpc or tls, or one ExternalService for each host")
			}
			if p.TargetPort != p.Port {
				c.fail(fmt.Sprintf("spec.ports[%d].targetPort", i), "is not the port %d: with resolution Original the port that the program called stands", p.Port)
			}
		}
	default:
		c.fail("spec.resolution", "%q is not known: write DNS, Static or Original", s.Resolution)
	}
	for i, e := range s.Endpoints {
		at := fmt.Sprintf("spec.endpoints[%d]", i)
		a, err := netip.ParseAddr(e.Address)
		switch {
		case err == nil && (a.Zone() != "" || a.IsUnspecified() || a.IsMulticast()):
			c.fail(at+".address", "%q is not the address of a server", e.Address)
		case err != nil && s.Resolution == ResolutionStatic:
			c.fail(at+".address", "%q is not an IP address: write one, or resolution DNS", e.Address)
		case err != nil && !hostname(e.Address):
			c.fail(at+".address", "%q is neither an IP address nor the name of a host", e.Address)
		}
		if e.Port != 0 {
			c.between(at+".port", int64(e.Port), 1, 65535)
			if len(s.Ports) > 1 {
				c.fail(at+".port", "cannot be said where the service has several ports: write targetPort for each of them")
			}
		}
		c.between(at+".weight", int64(e.Weight), 1, maxExternalWeight)
	}
}
