package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
	"github.com/tulle-mesh/tulle/control/store/storetest"
)

// writerDir, when set, makes the test binary the process that TestKilled kills.
const writerDir = "TULLE_TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		writeForever(dir)
		return
	}
	os.Exit(m.Run())
}

func embedded(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	s, err := etcd.Embed(t.Context(), dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContractEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func(int64) error) {
		s := embedded(t, t.TempDir())
		return s, func(rev int64) error { return s.Compact(t.Context(), rev) }
	})
}

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	s := embedded(t, dir)
	k := store.Key{Kind: "Service", Namespace: "default", Name: "cart"}
	rev, err := s.Put(t.Context(), store.Object{Key: k, Value: []byte("x")}, store.Any)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("mode of the data folder: %v, %v", st.Mode(), err)
	}
	begin := time.Now()
	s = embedded(t, dir)
	o, err := s.Get(t.Context(), k)
	if err != nil || string(o.Value) != "x" || o.Revision != rev {
		t.Fatalf("after a restart: %+v, %v", o, err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("ready after %v", d)
	}
	if next, err := s.Put(t.Context(), o, store.At(rev)); err != nil || next != rev+1 {
		t.Fatalf("revision %d, %v: want %d", next, err, rev+1)
	}
}

// TestNoSocket: nobody but this process can reach the embedded etcd, whatever the user (an abstract unix
// socket has no file mode).
func TestNoSocket(t *testing.T) {
	before := sockets(t)
	s := embedded(t, t.TempDir())
	if _, err := s.Put(t.Context(), store.Object{Key: store.Key{Kind: "a", Name: "b"}}, store.Any); err != nil {
		t.Fatal(err)
	}
	for inode, line := range sockets(t) {
		if _, old := before[inode]; !old {
			t.Errorf("the embedded etcd opened a socket: %s", line)
		}
	}
}

// sockets answers this process's sockets of every family, by inode.
func sockets(t *testing.T) map[string]string {
	t.Helper()
	own := map[string]string{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = target
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		b, err := os.ReadFile("/proc/self/net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			for _, f := range strings.Fields(line) {
				if _, ok := own[f]; ok {
					own[f] = table + " " + strings.TrimSpace(line)
				}
			}
		}
	}
	return own
}

// TestKilled: whatever was acknowledged before a kill -9 is there afterwards.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	acked := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var names []string
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			names = append(names, lines.Text())
			if len(names) == 200+100*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		if len(names) < 200 {
			t.Fatalf("the writer ended early, after %d writes", len(names))
		}
		s := embedded(t, dir)
		for _, n := range names {
			o, err := s.Get(t.Context(), store.Key{Kind: "Write", Name: n})
			if err != nil || string(o.Value) != n {
				t.Errorf("round %d: an acknowledged write is lost: %s: %v", round, n, err)
			}
		}
		s.Close()
		acked += len(names)
	}
	t.Logf("%d acknowledged writes, 3 kills", acked)
}

func writeForever(dir string) {
	s, err := etcd.Embed(context.Background(), dir, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if _, err := s.Put(context.Background(), store.Object{Key: store.Key{Kind: "Write", Name: name}, Value: []byte(name)}, store.Any); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				os.Stdout.WriteString(name + "\n") // unbuffered: it is out before the kill or was never said
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestQuiet: nothing of etcd goes to the terminal of the user.
func TestQuiet(t *testing.T) {
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo}))
	s, err := etcd.Embed(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if text.Len() > 0 {
		t.Errorf("logged:\n%s", text.String())
	}
}

func TestEmbedRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Embed(t.Context(), file, nil); err == nil || !strings.Contains(err.Error(), strconv.Quote(file)) && !strings.Contains(err.Error(), file) {
		t.Fatalf("a file as data folder: %v", err)
	}
}
