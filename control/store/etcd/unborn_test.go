package etcd_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
)

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
