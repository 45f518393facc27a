package shop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// maxSessions is how many browsing sessions the load generator has open at most; more are not started.
const maxSessions = 100

// runLoad lets customers browse: each looks at the home page and a few products, some fill a cart, some buy.
// Sessions start at cfg.Rate a second whatever the shop answers. Failures are logged and counted.
func runLoad(ctx context.Context, cfg Config) error {
	c := client()
	defer c.CloseIdleConnections()
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxSessions)
	tick := time.NewTicker(time.Duration(float64(time.Second) / cfg.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue // all sessions are busy
		}
		open.Go(func() {
			defer func() { <-slots }()
			// A session that has begun is finished after ctx ended: a cut-off request is no finding.
			session, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
			defer cancel()
			if err := browse(session, c, cfg.Target, fmt.Sprintf("user-%d", n)); err != nil {
				cfg.Logger.Error("session failed", "error", err)
			}
		})
	}
}

// browse is one customer's visit.
func browse(ctx context.Context, c *http.Client, shop, user string) error {
	type step struct{ method, path string }
	product := func() string { return products[rand.IntN(len(products))].ID }
	steps := []step{{http.MethodGet, "/"}, {http.MethodGet, "/product/" + product()}, {http.MethodGet, "/product/" + product()}}
	if rand.IntN(3) == 0 {
		steps = append(steps, step{http.MethodPost, "/cart/" + user + "/" + product()}, step{http.MethodGet, "/cart/" + user})
		if rand.IntN(2) == 0 {
			steps = append(steps, step{http.MethodPost, "/checkout/" + user})
		}
	}
	for _, s := range steps {
		if _, err := fetch(ctx, c, s.method, shop+s.path, nil); err != nil {
			return err
		}
	}
	return nil
}
