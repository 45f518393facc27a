package token_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
)

func root() []byte { return []byte("root") }

func TestTokens(t *testing.T) {
	s := mem.New(0)
	defer s.Close()
	tokens, ctx, now := token.New(s, root), t.Context(), time.Unix(1_800_000_000, 0)
	text, info, err := tokens.Issue(ctx, token.Spec{Namespace: "shop", ServiceAccount: "cart", Uses: 2}, now)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := token.New(s, root).Issue(ctx, token.Spec{Namespace: "shop"}, now)
	if err != nil {
		t.Fatal(err)
	}
	mixed := text[:len("tulle-join.")+16] + other[len("tulle-join.")+16:] // the id of one, the secret of another
	for name, refused := range map[string]error{
		"another namespace": tokens.Redeem(ctx, text, "default", "cart", now), "another account": tokens.Redeem(ctx, text, "shop", "web", now),
		"too late": tokens.Redeem(ctx, text, "shop", "cart", now.Add(time.Hour)), "another secret": tokens.Redeem(ctx, mixed, "shop", "cart", now),
		"not a token": tokens.Redeem(ctx, "x", "shop", "cart", now),
	} {
		if !errors.Is(refused, token.ErrRefused) {
			t.Errorf("%s: %v", name, refused)
		}
	}
	for _, bad := range []token.Spec{{Namespace: "A b"}, {Namespace: "a/b"}, {ServiceAccount: "x.y"}, {Uses: -1}, {TTL: time.Millisecond}, {Namespace: "-"}} {
		if _, _, err := tokens.Issue(ctx, bad, now); err == nil {
			t.Errorf("a token that nobody can use: %+v", bad)
		}
	}
	var wg sync.WaitGroup
	var let atomic.Int32
	for range 8 {
		wg.Go(func() {
			if tokens.Redeem(ctx, text, "shop", "cart", now) == nil {
				let.Add(1)
			}
		})
	}
	wg.Wait()
	if let.Load() != 2 {
		t.Errorf("a token for 2 uses let %d in", let.Load())
	}
	list, err := tokens.List(ctx, now)
	if err != nil || len(list) != 1 || list[0].ID == info.ID {
		t.Errorf("%v, %v", list, err)
	}
	if err := tokens.Revoke(ctx, list[0].ID); err != nil || !errors.Is(tokens.Redeem(ctx, other, "shop", "cart", now), token.ErrRefused) {
		t.Errorf("revoked, and yet it lets in: %v", err)
	}
}
