package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// Embed starts an etcd inside this process with its data in dir (made with mode 0700). It listens nowhere.
// One process at a time may use dir. It answers when the store can be used, or when ctx ends.
func Embed(ctx context.Context, dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	if err := setUnbornAside(dir); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	e, err := embed.StartEtcd(embeddedConfig(dir, log))
	if err != nil {
		return nil, fmt.Errorf("embedded etcd in %s: %w", dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, embedWait)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		e.Close()
		return nil, fmt.Errorf("embedded etcd in %s ended while it started: see the log; if its files are damaged, restore %[1]s from a copy or choose another --data-dir", dir)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("embedded etcd in %s is not ready: %w: see the log; if its files are damaged, restore %[1]s from a copy or choose another --data-dir", dir, ctx.Err())
	}
	if err := markBorn(dir); err != nil {
		e.Close()
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	client := v3client.New(e.Server)
	return newStore(client, func() error {
		err := client.Close()
		e.Close()
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}), nil
}

// embedWait bounds the start of an embedded etcd, which takes well under a second; with a full log to read, a few.
const embedWait = time.Minute

// bornFile is in the folder of an etcd that has been ready once. An etcd whose very first start was cut off can leave a
// log without itself as a member: it would then wait for a leader for ever. As nothing was ever acknowledged from
// such a folder, it is set aside, and the start begins anew.
const bornFile = "born"

func setUnbornAside(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, bornFile)); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "member")); errors.Is(err, fs.ErrNotExist) {
		return nil // there was no start yet
	}
	aside := dir + ".unborn"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o700)
}

// markBorn is on disk before anything is acknowledged.
func markBorn(dir string) error {
	path := filepath.Join(dir, bornFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func embeddedConfig(dir string, log *slog.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "tulle"
	cfg.Dir = dir
	cfg.TickMs, cfg.ElectionMs = 50, 500
	// No listener of any kind: a single member needs no peers, and a unix peer URL would become an abstract
	// socket that every user of the machine can reach. The advertised peer URL is only a name.
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls = nil
	cfg.AdvertiseClientUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "10000"
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 5000, 500
	cfg.BootstrapDefragThresholdMegabytes = 64
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet(log))
	return cfg
}

// Config says where an etcd cluster is.
type Config struct {
	Endpoints []string // http://, https:// or host:port; at least one
	CACert    string   // file: authority of the servers' certificates; "" the system's
	Cert, Key string   // files: the client's certificate; both or none
	Log       *slog.Logger
}

// Dial uses an etcd cluster that runs somewhere else. It answers when the cluster has answered once.
func Dial(ctx context.Context, cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoint given")
	}
	where := strings.Join(cfg.Endpoints, ",")
	secure, err := clientTLS(cfg)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  secure,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               quiet(cfg.Log),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %s: %w", where, err)
	}
	s := newStore(client, client.Close)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := s.Revision(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("no etcd answers at %s: check --etcd-endpoints and the --etcd-cacert, --etcd-cert and --etcd-key files: %w", where, err)
	}
	return s, nil
}

func clientTLS(cfg Config) (*tls.Config, error) {
	plain := cfg.CACert == "" && cfg.Cert == "" && cfg.Key == ""
	for _, e := range cfg.Endpoints {
		plain = plain && !strings.HasPrefix(e, "https://")
		if !plain && strings.HasPrefix(e, "http://") {
			return nil, fmt.Errorf("etcd: endpoint %s is plain but a TLS file or an https endpoint is given too: use https:// for all", e)
		}
	}
	if plain {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CACert != "" {
		pem, err := os.ReadFile(cfg.CACert)
		if err != nil {
			return nil, fmt.Errorf("etcd: --etcd-cacert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd: --etcd-cacert: %s holds no certificate in PEM", cfg.CACert)
		}
	}
	if cfg.Cert != "" || cfg.Key != "" {
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("etcd: --etcd-cert and --etcd-key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
