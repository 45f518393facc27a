// Package connect runs Connect's conformance suite (Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2) with the proxy
// between its client and its server. The suite starts a server for each configuration and reads from it where it listens;
// Between stands in for the server, starts the real one and a proxy in front of it, and names the proxy's port.
package connect

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// Fields of the suite's messages ServerCompatRequest, ServerCompatResponse and TLSCreds.
const (
	requestVersion  = 2
	requestTLS      = 4
	requestClientCA = 5
	requestCreds    = 7

	responsePort = 2
	responseCert = 3

	credsCert = 1
	credsKey  = 2

	version2 = 2 // HTTP_VERSION_2
)

// Between runs until it is ended by a signal: server is the real one, proxy the command that a bootstrap file is added to.
func Between(server string, proxy []string) error {
	request, err := readMessage(os.Stdin)
	if err != nil {
		return fmt.Errorf("reading the suite's request: %w", err)
	}
	dir, err := os.MkdirTemp("", "connect")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	boot, cert, plain, err := front(request, dir)
	if err != nil {
		return err
	}
	port, stop, err := behind(server, plain)
	if err != nil {
		return err
	}
	defer stop()
	boot.Clusters[0].Port = port
	if boot.Listeners[0].Port, err = free(); err != nil {
		return err
	}
	end, err := inFront(proxy, boot, dir)
	if err != nil {
		return err
	}
	answer := protowire.AppendTag(nil, responsePort, protowire.VarintType)
	answer = protowire.AppendVarint(answer, uint64(boot.Listeners[0].Port))
	if cert != nil {
		answer = protowire.AppendTag(answer, responseCert, protowire.BytesType)
		answer = protowire.AppendBytes(answer, cert)
	}
	if err := writeMessage(os.Stdout, answer); err != nil {
		return err
	}
	return end()
}

// front says what the proxy does for a request of the suite: TLS ends there. cert is what the client is to trust, plain the
// request for the server behind it, without TLS.
func front(request []byte, dir string) (boot subject.Bootstrap, cert, plain []byte, err error) {
	boot.Clusters = []subject.Cluster{{Name: "server"}}
	boot.Listeners = []subject.Listener{{Cluster: "server"}}
	var key, clientCA []byte
	tls := false
	err = fields(request, func(number protowire.Number, value uint64, data, whole []byte) error {
		switch number {
		case requestTLS:
			tls = value != 0
			return nil
		case requestClientCA:
			clientCA = data
			return nil
		case requestCreds:
			return fields(data, func(number protowire.Number, _ uint64, data, _ []byte) error {
				switch number {
				case credsCert:
					cert = data
				case credsKey:
					key = data
				}
				return nil
			})
		case requestVersion:
			boot.Clusters[0].HTTP2 = value == version2
		}
		plain = append(plain, whole...)
		return nil
	})
	if err != nil || !tls {
		return boot, nil, plain, err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	s := &subject.ServerTLS{Cert: at("cert.pem"), Key: at("key.pem")}
	if len(clientCA) > 0 {
		s.ClientCA = at("ca.pem")
	}
	boot.Listeners[0].TLS = s
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key, "ca.pem": clientCA} {
		if err := os.WriteFile(at(name), data, 0o600); err != nil {
			return boot, nil, nil, err
		}
	}
	return boot, cert, plain, nil
}

// fields calls f with every field of a message; value is that of a varint.
func fields(message []byte, f func(number protowire.Number, value uint64, data, whole []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		var value uint64
		var data []byte
		k := 0
		switch kind {
		case protowire.VarintType:
			value, k = protowire.ConsumeVarint(message[n:])
		case protowire.BytesType:
			data, k = protowire.ConsumeBytes(message[n:])
		default:
			k = protowire.ConsumeFieldValue(number, kind, message[n:])
		}
		if k < 0 {
			return protowire.ParseError(k)
		}
		if err := f(number, value, data, message[:n+k]); err != nil {
			return err
		}
		message = message[n+k:]
	}
	return nil
}

// behind starts the real server and answers its port.
func behind(server string, request []byte) (port int, stop func(), err error) {
	c := child(server)
	in, err := c.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := c.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() {
		_ = c.Process.Kill() // ended already: nothing to do
		_ = c.Wait()         // killed
	}
	if err := writeMessage(in, request); err == nil {
		in.Close()
	}
	answer, err := readMessage(out)
	if err == nil {
		err = fields(answer, func(number protowire.Number, value uint64, _, _ []byte) error {
			if number == responsePort {
				port = int(value)
			}
			return nil
		})
	}
	if err != nil {
		stop()
		return 0, nil, fmt.Errorf("%s: %w", server, err)
	}
	return port, stop, nil
}

// inFront starts the proxy; end waits for it.
func inFront(proxy []string, boot subject.Bootstrap, dir string) (end func() error, err error) {
	admin, err := free()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(boot.YAML(admin)), 0o600); err != nil {
		return nil, err
	}
	c := child(proxy[0], append(proxy[1:], file)...)
	if err := c.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", admin))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return c.Wait, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the proxy is not ready: %w", err)
		}
	}
}

// child is a program that ends with this one.
func child(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func free() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

const maxMessage = 1 << 20

// readMessage reads a message and its length in front of it.
func readMessage(r io.Reader) ([]byte, error) {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return nil, err
	}
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

func writeMessage(w io.Writer, p []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...))
	return err
}
