package etcd_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
)

// TestUnborn: a first start that was cut off after it had made its log and before it had joined itself does not keep
// later ones from starting. What it left is set aside, not removed.
func TestUnborn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	if err := os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	id := uint64(1)
	meta, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: &id, ClusterID: &id})
	if err != nil {
		t.Fatal(err)
	}
	w, err := wal.Create(zap.NewNop(), filepath.Join(dir, "member", "wal"), meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := etcd.Embed(ctx, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(filepath.Join(dir+".unborn", "member", "wal")); err != nil {
		t.Errorf("what the first start left: %v", err)
	}
}

// TestFirstStartCutOff: whenever the first start is cut off, the next one works; what a start that succeeded has
// acknowledged is there afterwards.
func TestFirstStartCutOff(t *testing.T) {
	for after := range 8 {
		dir := filepath.Join(t.TempDir(), "etcd")
		cut, cancel := context.WithTimeout(t.Context(), time.Duration(after)*4*time.Millisecond)
		if s, err := etcd.Embed(cut, dir, slog.New(slog.DiscardHandler)); err == nil {
			s.Close()
		}
		cancel()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		for _, present := range []bool{false, true} {
			s, err := etcd.Embed(ctx, dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatalf("cut off after %d ms: %v", after*4, err)
			}
			if present {
				_, err = s.Get(ctx, store.Key{Kind: "K", Name: "n"})
			} else {
				_, err = s.Put(ctx, store.Object{Key: store.Key{Kind: "K", Name: "n"}, Value: []byte("v")}, store.Any)
			}
			if err != nil {
				t.Errorf("cut off after %d ms, stored %v: %v", after*4, present, err)
			}
			s.Close()
		}
		cancel()
	}
}
