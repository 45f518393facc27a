package token_test

import (
	"errors"
	"strconv"
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
	other, _, err := token.New(s, root).Issue(ctx, token.Spec{Namespace: "shop", Any: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	mixed := text[:len("tulle-join.")+16] + other[len("tulle-join.")+16:] // the id of one, the secret of another
	for name, refused := range map[string]error{
		"another namespace": tokens.Redeem(ctx, text, "default", "cart", "cart", now), "another account": tokens.Redeem(ctx, text, "shop", "web", "web", now),
		"too late": tokens.Redeem(ctx, text, "shop", "cart", "cart", now.Add(time.Hour)), "another secret": tokens.Redeem(ctx, mixed, "shop", "cart", "cart", now),
		"not a token": tokens.Redeem(ctx, "x", "shop", "cart", "cart", now),
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
			if tokens.Redeem(ctx, text, "shop", "cart", "cart", now) == nil {
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
	if err := tokens.Revoke(ctx, list[0].ID); err != nil || !errors.Is(tokens.Redeem(ctx, other, "shop", "cart", "cart", now), token.ErrRefused) {
		t.Errorf("revoked, and yet it lets in: %v", err)
	}
}

// TestBindings: an account serves the service of its own name, and others only where a token or the owner has said so.
func TestBindings(t *testing.T) {
	s := mem.New(0)
	defer s.Close()
	tokens, ctx, now := token.New(s, root), t.Context(), time.Now()
	text, info, err := tokens.Issue(ctx, token.Spec{Service: "cart", ServiceAccount: "shop-backend"}, now)
	if err != nil || info.Service != "cart" || info.Expires.Sub(now) > 15*time.Minute || info.Uses != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	for _, c := range [][2]string{{"shop-backend", "bank"}, {"shop-backend", "shop-backend"}, {"cart", "cart"}} {
		if err := tokens.Redeem(ctx, text, "default", c[0], c[1], now); !errors.Is(err, token.ErrRefused) {
			t.Errorf("%s to serve %s: %v", c[0], c[1], err)
		}
	}
	if err := tokens.Redeem(ctx, text, "default", "shop-backend", "cart", now); err != nil {
		t.Error(err)
	}
	for _, bad := range []token.Spec{{}, {Any: true, Service: "cart"}, {Service: "a/b"}} {
		if _, _, err := tokens.Issue(ctx, bad, now); err == nil {
			t.Errorf("a token for %+v", bad)
		}
	}
	serves := func(account, service string) bool {
		err := tokens.Serves(ctx, "default", account, service)
		if err != nil && !errors.Is(err, token.ErrBound) {
			t.Error(err)
		}
		return err == nil
	}
	if !serves("cart", "cart") || serves("shop-backend", "cart") {
		t.Error("before it was bound")
	}
	for range 2 {
		if err := tokens.Bind(ctx, "default", "shop-backend", "cart"); err != nil {
			t.Fatal(err)
		}
	}
	if !serves("shop-backend", "cart") || serves("shop-backend", "bank") || tokens.Serves(ctx, "other", "shop-backend", "cart") == nil {
		t.Error("after it was bound")
	}
	if list, err := tokens.Bindings(ctx); err != nil || len(list) != 1 || len(list[0].Services) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := tokens.Unbind(ctx, "default", "shop-backend", "cart"); err != nil || serves("shop-backend", "cart") {
		t.Errorf("unbound: %v", err)
	}
	if err := tokens.Unbind(ctx, "default", "shop-backend", "cart"); err == nil {
		t.Error("unbound twice")
	}
	for i := range 64 {
		if err := tokens.Bind(ctx, "default", "many", "s"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if tokens.Bind(ctx, "default", "many", "one-more") == nil {
		t.Error("without a bound")
	}
}
