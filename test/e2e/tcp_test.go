//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRedis: a protocol in which the client speaks first.
func TestRedis(t *testing.T) {
	server, cli := program(t, "redis-server", "redis-server"), program(t, "redis-cli", "redis-tools")
	m := newMesh(t)
	p := m.run([]string{"--service", "redis", "--port", "6379"}, server, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", m.dir, "--bind", "127.0.0.1")
	m.announced(p)
	if got := m.ok(m.call(cli, "-h", "redis", "ping")); got != "PONG\n" {
		t.Errorf("PING: %q", got)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if got := m.ok(m.callInput(strings.NewReader(big), cli, "-h", "redis", "-x", "set", "big")); got != "OK\n" {
		t.Errorf("SET of a megabyte: %q", got)
	}
	if got := m.ok(m.call(cli, "-h", "redis", "get", "big")); strings.TrimSuffix(got, "\n") != big {
		t.Errorf("GET answered %d bytes, want %d", len(got), len(big))
	}
	var pipe strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&pipe, "SET k%d v%d\r\n", i, i)
	}
	if got := m.ok(m.callInput(strings.NewReader(pipe.String()), cli, "-h", "redis", "--pipe")); !strings.Contains(got, "errors: 0, replies: 20000") {
		t.Errorf("20000 commands in one go: %s", got)
	}
	subscriber := m.run([]string{"--service", "subscriber"}, cli, "-h", "redis", "subscribe", "news")
	eventually(t, patience, "a message for the subscriber", func() error {
		m.ok(m.call(cli, "-h", "redis", "publish", "news", "hello"))
		if !strings.Contains(subscriber.stdout(), "hello") {
			return fmt.Errorf("it has read %q", subscriber.stdout())
		}
		return nil
	})
}

// asNobody puts before a command what makes root nobody: some servers refuse to run as root.
func asNobody(t testing.TB, command ...string) []string {
	if !isRoot() {
		return command
	}
	return append([]string{program(t, "setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"}, command...)
}

// ownedByNobody makes a folder that asNobody can write to.
func ownedByNobody(t testing.TB, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if isRoot() {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// TestPostgreSQL: a client that asks for TLS and goes on without.
func TestPostgreSQL(t *testing.T) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		t.Fatal("TestPostgreSQL needs the server: install it with 'apt-get install -y postgresql'")
	}
	bin := filepath.Dir(found[len(found)-1])
	psql := program(t, "psql", "postgresql-client")
	m := newMesh(t)
	data := ownedByNobody(t, filepath.Join(m.dir, "pg"))
	init := m.run([]string{"--service", "initdb"}, asNobody(t, filepath.Join(bin, "initdb"), "-D", data, "-U", "test", "-A", "trust", "--no-sync", "--no-instructions")...)
	if code := init.wait(60 * time.Second); code != 0 {
		t.Fatalf("initdb ended with %d: %s", code, init.stderr())
	}
	p := m.run([]string{"--service", "pg", "--port", "5432"}, asNobody(t, filepath.Join(bin, "postgres"), "-D", data, "-k", data, "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1")...)
	m.announced(p)
	query := func(sql string) string {
		return m.ok(m.call(psql, "-h", "pg", "-U", "test", "-d", "postgres", "-At", "-c", sql))
	}
	if got := query("select 6*7"); got != "42\n" {
		t.Errorf("select: %q", got)
	}
	if got := query("select sum(length(repeat(md5(i::text), 100))) from generate_series(1, 2000) i"); got != "6400000\n" {
		t.Errorf("sum: %q", got)
	}
	if got := query("select repeat(md5(i::text), 100) from generate_series(1, 1000) i"); len(got) != 3201000 {
		t.Errorf("a result of 3201000 bytes arrived with %d", len(got))
	}
}

// TestMariaDB: the server speaks first, on a port of which nothing was said, and nobody waits for anything.
func TestMariaDB(t *testing.T) {
	server, client := program(t, "mariadbd", "mariadb-server"), program(t, "mariadb", "mariadb-client")
	install := program(t, "mariadb-install-db", "mariadb-server")
	m := newMesh(t)
	data := ownedByNobody(t, filepath.Join(m.dir, "my"))
	init := m.run([]string{"--service", "init"}, asNobody(t, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	if code := init.wait(120 * time.Second); code != 0 {
		t.Fatalf("mariadb-install-db ended with %d: %s%s", code, init.stdout(), init.stderr())
	}
	// Root may come from 127.0.0.1 without a password; the server sees its callers there.
	p := m.run([]string{"--service", "db", "--port", "3306"}, asNobody(t, server, "--no-defaults", "--datadir="+data,
		"--socket="+filepath.Join(data, "s"), "--pid-file="+filepath.Join(data, "p"), "--skip-grant-tables", "--port=3306", "--bind-address=0.0.0.0", "--skip-networking=0",
		"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--performance-schema=0")...)
	m.announced(p)
	begin := time.Now()
	if got := m.ok(m.call(client, "--no-defaults", "-h", "db", "-u", "root", "--skip-ssl", "-N", "-e", "select 6*7")); got != "42\n" {
		t.Errorf("select: %q", got)
	}
	t.Logf("a client from start to end: %s", time.Since(begin).Round(time.Millisecond))
	if got := m.ok(m.call(client, "--no-defaults", "-h", "db", "-u", "root", "--skip-ssl", "-N", "-e", "select repeat('x', 1000000)")); len(got) != 1000001 {
		t.Errorf("a result of 1000001 bytes arrived with %d", len(got))
	}
}

// TestNetcat: bytes both ways, whoever begins, and what half-closing means.
func TestNetcat(t *testing.T) {
	nc := program(t, "nc", "netcat-openbsd")
	m := newMesh(t)

	t.Run("the client speaks first", func(t *testing.T) {
		p := m.run([]string{"--service", "sink", "--port", "7000", "--ready", "tcp"}, "sh", "-c", "while true; do "+nc+" -l -N 7000 </dev/null; done")
		m.announced(p)
		m.ok(m.callInput(strings.NewReader("hello\n"), nc, "-N", "sink", "7000"))
		eventually(t, patience, "the line arrives", func() error {
			if p.stdout() != "hello\n" {
				return fmt.Errorf("%q", p.stdout())
			}
			return nil
		})
	})
	t.Run("the server speaks first", func(t *testing.T) {
		p := m.run([]string{"--service", "greeter", "--port", "7000", "--ready", "tcp"}, "sh", "-c", "while true; do echo 220 welcome | "+nc+" -l -N 7000; done")
		m.announced(p)
		eventually(t, patience, "a greeting", func() error { // nc takes one connection, and is started again for the next
			if r := m.call("sh", "-c", nc+" -w 5 -d greeter 7000"); r.stdout != "220 welcome\n" {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
	})
	t.Run("the whole answer after FIN", func(t *testing.T) {
		p := m.run([]string{"--service", "counter", "--port", "7000"}, self(t), "serve-after-fin", "7000")
		m.announced(p)
		got := m.ok(m.callInput(strings.NewReader("x"), nc, "-N", "counter", "7000"))
		if !strings.HasPrefix(got, "1 bytes\n") || len(got) != 8+1<<20 {
			t.Errorf("%d bytes: %.20q…", len(got), got)
		}
	})
	t.Run("32 megabytes", func(t *testing.T) {
		file, sum := randomFile(t, filepath.Join(m.dir, "big"), 32<<20)
		m.run([]string{"--service", "bulk", "--port", "7000", "--ready", "tcp"}, "sh", "-c", "while true; do "+nc+" -l -N 7000 <"+file+"; done")
		eventually(t, 2*patience, "the checksum of what arrives", func() error {
			r := m.call("sh", "-c", nc+" -d bulk 7000 | sha256sum")
			if !strings.HasPrefix(r.stdout, sum) {
				return fmt.Errorf("%s, want %s", r, sum)
			}
			return nil
		})
		sink := m.run([]string{"--service", "upload", "--port", "7000", "--ready", "tcp"}, "sh", "-c", "while true; do "+nc+" -l -N 7000 </dev/null | sha256sum; done")
		m.announced(sink)
		m.ok(m.call("sh", "-c", nc+" -N upload 7000 <"+file))
		eventually(t, patience, "the checksum of what was sent", func() error {
			if !strings.Contains(sink.stdout(), sum) {
				return fmt.Errorf("%s, want %s", sink.stdout(), sum)
			}
			return nil
		})
	})
}

func randomFile(t testing.TB, path string, size int) (file, sum string) {
	t.Helper()
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{7}).Read(b)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(b))
}

// TestManyConnections: a thousand at once.
func TestManyConnections(t *testing.T) {
	m := newMesh(t)
	p := m.run([]string{"--service", "counter", "--port", "7000"}, self(t), "serve-after-fin", "7000")
	m.announced(p)
	if got := m.ok(m.call(self(t), "many", "counter:7000", "1000")); got != "1000 of 1000 answered\n" {
		t.Error(got)
	}
}
