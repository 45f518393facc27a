package underway_test

import (
	"context"
	"testing"

	"github.com/tulle-mesh/tulle/internal/underway"
)

// TestBound: no more than the bound at a time; who has said that it is free makes room, once, and whoever has ended.
func TestBound(t *testing.T) {
	g := underway.New(2)
	freed, end := make(chan struct{}), make(chan struct{})
	if !g.Go(func(_ context.Context, free func()) {
		free()
		free()
		close(freed)
		<-end
	}) {
		t.Fatal("no room for the first")
	}
	<-freed
	waits := func(ctx context.Context, _ func()) { <-ctx.Done() }
	for range 2 {
		if !g.Go(waits) {
			t.Fatal("the first still counts")
		}
	}
	if g.Go(waits) {
		t.Fatal("a third one is under way")
	}
	close(end)
	g.Close() // ends those that wait
	if g.Go(waits) {
		t.Error("one began after the end")
	}
}
