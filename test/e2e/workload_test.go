//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// svidServeMain is a program that knows nothing of Tulle: it accepts mutual TLS with what go-spiffe finds at
// $SPIFFE_ENDPOINT_SOCKET, and tells each caller who he is and the serial number of its own certificate.
func svidServeMain(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:"+args[0], tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if err := c.(*tls.Conn).Handshake(); err != nil {
				fmt.Fprintln(os.Stderr, "handshake:", err)
				return
			}
			peer := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
			own, err := source.GetX509SVID()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			fmt.Fprintf(c, "you are %s, I am %s with %x\n", peer.URIs[0], own.ID, own.Certificates[0].SerialNumber)
		}()
	}
}

// svidCallMain calls such a program again and again, a handshake for each call. It prints the socket's mode, the first answer,
// "rotated" when its own certificate and the other's are others than at first, and "again" when the other's has changed once more.
// Calls that fail it tells as "failed". args: address, whom to expect.
func svidCallMain(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	expect, err := spiffeid.FromString(args[1])
	if err != nil {
		return err
	}
	socket := strings.TrimPrefix(os.Getenv(workloadapi.SocketEnv), "unix://")
	info, err := os.Stat(socket)
	if err != nil {
		return err
	}
	fmt.Println("socket", info.Mode(), info.Sys().(*syscall.Stat_t).Uid == uint32(os.Getuid()))
	fmt.Println("remove", os.Remove(socket) != nil)
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(expect))}
	call := func() (answer, own string, err error) {
		now, err := source.GetX509SVID()
		if err != nil {
			return "", "", err
		}
		c, err := d.DialContext(ctx, "tcp", args[0])
		if err != nil {
			return "", "", err
		}
		defer c.Close()
		answer, err = bufio.NewReader(io.LimitReader(c, 4096)).ReadString('\n')
		return answer, now.Certificates[0].SerialNumber.String(), err
	}
	first, mine, err := call()
	if err != nil {
		return err
	}
	fmt.Print(first)
	rotated := ""
	for ctx.Err() == nil {
		answer, own, err := call()
		switch {
		case err != nil:
			fmt.Println("failed", err)
		case rotated == "" && answer != first && own != mine:
			rotated = answer
			fmt.Println("rotated")
		case rotated != "" && answer != rotated:
			fmt.Println("again")
			return nil
		}
		time.Sleep(20 * time.Millisecond) // poll
	}
	return errors.New("no rotation was seen")
}

// TestWorkloadAPI: two programs with go-spiffe prove themselves to each other by what their proxies serve them, through the mesh,
// and see certificates rotate without a handshake that fails. The socket is the program's alone, and outlives a proxy.
func TestWorkloadAPI(t *testing.T) {
	m := newMesh(t, "--identity-lifetime", "1m", "--intermediate-lifetime", "10m", "--root-lifetime", "1h")
	served := m.run([]string{"--service", "svid", "--port", "8443/tcp", "--workload-api"}, self(t), "svid-serve", "8443")
	m.announced(served)
	call := m.run([]string{"--service", "caller", "--workload-api"}, self(t), "svid-call", "svid:8443", "spiffe://tulle.local/ns/default/sa/svid")
	eventually(t, patience, "the first call", func() error {
		if !strings.Contains(call.stdout(), "you are") {
			return errors.New(call.stdout() + call.stderr())
		}
		return nil
	})
	for _, want := range []string{"socket Srw------- true\n", "remove true\n", "you are spiffe://tulle.local/ns/default/sa/caller, I am spiffe://tulle.local/ns/default/sa/svid with "} {
		if !strings.Contains(call.stdout(), want) {
			t.Errorf("%q is not in %q", want, call.stdout())
		}
	}
	// Nobody outside has a path to the socket, and the program's key is not the proxy's.
	if list, _ := filepath.Glob(filepath.Join(m.data, "*workload*")); len(list) > 0 {
		t.Errorf("on the machine: %v", list)
	}
	_, proxys := m.leaf("svid")
	if strings.Contains(call.stdout(), strings.ToLower(strings.ReplaceAll(proxys.Serial, ":", ""))) {
		t.Error("the program proves itself with its proxy's certificate")
	}
	m.ok(m.cli("cert", "rotate", "--leaves"))
	eventually(t, 2*patience, "both certificates are new", func() error {
		if !strings.Contains(call.stdout(), "rotated") {
			return errors.New(call.stdout() + call.stderr())
		}
		return nil
	})
	if strings.Contains(call.stdout(), "failed") {
		t.Errorf("handshakes failed: %s", call.stdout())
	}
	kill([]int{served.proxyOf()}) // the next one serves the same socket
	if code := call.wait(3 * patience); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, call.stdout(), call.stderr())
	}
	// Without the flag there is no socket and no variable.
	if got := m.call("sh", "-c", `echo "[$SPIFFE_ENDPOINT_SOCKET]"; ls -A `+m.data); got.stdout != "[]\n" {
		t.Errorf("without --workload-api: %s", got)
	}
}
