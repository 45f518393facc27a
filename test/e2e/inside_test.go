//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// This file has what the tests run inside the mesh where no common program does it; see TestMain.

// grpcHealthMain asks a server for its health with gRPC's own client, and then for the end of a stream.
func grpcHealthMain(args []string) error {
	c, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := healthpb.NewHealthClient(c)
	r, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: args[1]})
	if err != nil {
		return err
	}
	fmt.Println(r.Status)
	_, err = client.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"})
	fmt.Println(err) // the server's status, in trailers
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: args[1]})
	if err != nil {
		return err
	}
	w, err := stream.Recv()
	if err != nil {
		return err
	}
	fmt.Println(w.Status)
	return nil
}

// datagramMain sends one UDP datagram and prints how that went and how long it took.
func datagramMain(args []string) error {
	begin := time.Now()
	c, err := net.Dial("udp", args[0])
	if err == nil {
		_, err = c.Write([]byte("x"))
		c.Close()
	}
	return told(err, begin)
}

// pingMain sends one ICMP echo request from an unprivileged or else a raw socket.
func pingMain(args []string) error {
	begin := time.Now()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err != nil {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	}
	if err == nil {
		to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(args[0]).To4())}
		err = unix.Sendto(fd, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, to)
	}
	return told(err, begin)
}

// dialMain makes a TCP connection, reads from it and prints how that went.
func dialMain(args []string) error {
	begin := time.Now()
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err == nil {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if len(args) > 1 {
			_, err = io.WriteString(c, args[1])
		}
		if err == nil {
			var text []byte
			if text, err = io.ReadAll(io.LimitReader(c, 4096)); err == nil && len(text) == 0 {
				err = io.EOF
			} else if err == nil {
				fmt.Printf("read %q\n", text)
			}
		}
	}
	return told(err, begin)
}

// told prints "EPERM 3ms".
func told(err error, begin time.Time) error {
	name := "nothing was refused"
	for _, e := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ECONNRESET, unix.ECONNREFUSED, unix.ETIMEDOUT, unix.ENETUNREACH, unix.EHOSTUNREACH} {
		if errors.Is(err, e) {
			name = unix.ErrnoName(e)
		}
	}
	if errors.Is(err, io.EOF) {
		name = "EOF"
	} else if err != nil && name == "nothing was refused" {
		name = strings.ReplaceAll(err.Error(), " ", "_")
	}
	fmt.Printf("%s %s\n", name, time.Since(begin).Round(time.Millisecond))
	return nil
}

// serveAfterFINMain serves connections: it reads to the end (the peer's FIN), and only then answers with how much it
// was and a megabyte more.
func serveAfterFINMain(args []string) error {
	l, err := net.Listen("tcp", ":"+args[0])
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
			n, err := io.Copy(io.Discard, c)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			fmt.Fprintf(c, "%d bytes\n", n)
			io.WriteString(c, strings.Repeat("0123456789abcde\n", 1<<16))
		}()
	}
}

// manyMain opens a number of connections to such a server, and only when all are open ends and reads one after the other.
func manyMain(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var all []net.Conn
	for i := range n {
		c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := fmt.Fprintf(c, "%010d", i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		all = append(all, c)
	}
	answered := 0
	for i, c := range all {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		text, err := io.ReadAll(c)
		if err != nil {
			return fmt.Errorf("connection %d: %w after %d bytes", i, err, len(text))
		}
		if strings.HasPrefix(string(text), "10 bytes\n") && len(text) == 9+1<<20 {
			answered++
		}
	}
	fmt.Printf("%d of %d answered\n", answered, n)
	return nil
}

// websocketMain sends messages of 50000 bytes over a WebSocket (RFC 6455) and reads their echoes.
func websocketMain(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", args[1], args[0])
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("Upgrade") != "websocket" {
		return fmt.Errorf("the answer to the upgrade: %s %v", resp.Status, resp.Header)
	}
	const size, times = 50000, 20
	for i := range times {
		text := bytes.Repeat([]byte{byte('a' + i)}, size)
		frame := append([]byte{0x81, 0x80 | 126, size >> 8, size & 0xff, 0, 0, 0, 0}, text...) // the mask is zero
		if _, err := c.Write(frame); err != nil {
			return err
		}
		echo := make([]byte, 4+size)
		if _, err := io.ReadFull(r, echo); err != nil {
			return err
		}
		if echo[0] != 0x81 || !bytes.Equal(echo[4:], text) {
			return fmt.Errorf("another echo: %x…", echo[:8])
		}
	}
	fmt.Printf("echo of %d bytes, %d times\n", size, times)
	return nil
}

// grpcLoadMain calls a server with gRPC's own client over one connection until SIGTERM, and counts as loadMain does.
func grpcLoadMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := &load{sum: counts{Errors: map[string]int{}}}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		l.mu.Lock()
		l.sum.Opened++
		l.mu.Unlock()
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	c, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer c.Close()
	client := healthpb.NewHealthClient(c)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		call, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := client.Check(call, &healthpb.HealthCheckRequest{Service: args[1]})
		cancel()
		l.mu.Lock()
		if err == nil {
			l.sum.OK++
		} else {
			l.sum.Failed++
			l.sum.Errors[err.Error()]++
		}
		l.mu.Unlock()
		if n%40 == 0 {
			l.print(false)
		}
		<-tick.C
	}
	l.print(true)
	return nil
}
