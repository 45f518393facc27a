package shop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// kv is a key-value store over plain TCP, a line a command: "SET key value", "GET key", "DEL key"; the answer is
// "+value" or "-error". It stands for the database that every shop has.

const (
	maxKVKeys = 100_000
	maxKVLine = 4 << 10
)

type kvStore struct {
	mu     sync.Mutex
	values map[string]string
}

func runKV(ctx context.Context, cfg Config) error {
	l, err := net.Listen("tcp", ":"+KVPort)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	store := &kvStore{values: map[string]string{}}
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		open.Go(func() {
			defer c.Close()
			end := context.AfterFunc(ctx, func() { c.Close() })
			defer end()
			store.serve(c)
		})
	}
}

func (s *kvStore) serve(c net.Conn) {
	in := bufio.NewScanner(c)
	in.Buffer(make([]byte, 0, 512), maxKVLine)
	for in.Scan() {
		if _, err := fmt.Fprintln(c, s.do(in.Text())); err != nil {
			return
		}
	}
	if in.Err() != nil {
		fmt.Fprintln(c, "-line too long") // or the connection broke; then nobody reads this
	}
}

func (s *kvStore) do(line string) string {
	cmd, rest, _ := strings.Cut(line, " ")
	key, value, _ := strings.Cut(rest, " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch cmd {
	case "GET":
		return "+" + s.values[key]
	case "SET":
		if len(s.values) >= maxKVKeys && s.values[key] == "" {
			return "-full"
		}
		s.values[key] = value
		return "+ok"
	case "DEL":
		delete(s.values, key)
		return "+ok"
	default:
		return "-unknown command"
	}
}

// kvClient keeps a few connections to kv.
type kvClient struct {
	idle chan net.Conn
}

func newKVClient() *kvClient { return &kvClient{idle: make(chan net.Conn, 8)} }

// do sends one command and answers its value. A broken idle connection is replaced once.
func (k *kvClient) do(ctx context.Context, cmd string) (string, error) {
	select {
	case c := <-k.idle:
		if v, err := k.ask(c, cmd); err == nil {
			return v, nil
		}
	default:
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", "kv:"+KVPort)
	if err != nil {
		return "", err
	}
	return k.ask(c, cmd)
}

func (k *kvClient) ask(c net.Conn, cmd string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a closed connection says so in the next line
	if _, err := fmt.Fprintln(c, cmd); err != nil {
		c.Close()
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.Close()
		return "", err
	}
	select {
	case k.idle <- c:
	default:
		c.Close()
	}
	line = strings.TrimSuffix(line, "\n")
	if v, ok := strings.CutPrefix(line, "+"); ok {
		return v, nil
	}
	return "", errors.New("kv: " + strings.TrimPrefix(line, "-"))
}
