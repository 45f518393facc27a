package routes_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/control/routes"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/model"
)

func object(name, parent string) store.Object {
	return store.Object{
		Key:   store.Key{Kind: "HTTPRoute", Namespace: "default", Name: name},
		Value: []byte(`{"spec":{"parentRefs":[{"group":"","kind":"Service","name":"` + parent + `"}]}}`),
	}
}

// TestFollow: what is stored before and after Start is in the index, and everyone it concerns is named.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := mem.New(100)
		defer st.Close()
		put := func(o store.Object) {
			if _, err := st.Put(ctx, o, store.Any); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put(object("old", "cart"))
		var changed []string
		r, err := routes.Start(ctx, routes.Config{Store: st, Log: slog.New(slog.DiscardHandler), Services: func() []model.ServiceName { return []model.ServiceName{{Namespace: "default", Name: "all"}} }, Changed: func(s []model.ServiceName, _ int64) {
			for _, n := range s {
				changed = append(changed, n.String())
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if n := len(r.Index().Routes()); n != 1 || changed != nil {
			t.Fatalf("after the start: %d routes, changed %v", n, changed)
		}
		put(object("new", "web"))
		put(object("new", "cart")) // moves from web to cart: both are concerned
		if want := []string{"web.default", "web.default", "cart.default"}; !slices.Equal(changed, want) {
			t.Fatalf("changed %v, want %v", changed, want)
		}
		put(store.Object{Key: object("new", "").Key, Value: []byte("{")}) // unreadable: left out, not fatal
		if n := len(r.Index().Routes()); n != 1 {
			t.Fatalf("%d routes after an unreadable one", n)
		}
		if _, err := st.Delete(ctx, object("old", "").Key, store.Any); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(r.Index().Routes()); n != 0 {
			t.Fatalf("%d routes at the end", n)
		}
	})
}

// TestReach: who has stored something can wait until the index shows it.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := mem.New(100)
		defer st.Close()
		r, err := routes.Start(ctx, routes.Config{Store: st, Log: slog.New(slog.DiscardHandler),
			Services: func() []model.ServiceName { return nil }, Changed: func([]model.ServiceName, int64) { <-time.After(time.Second) }}) // slow, in virtual time
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		policy := []byte(`{"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "a"}], "timeouts": {"request": "3s"}}}`)
		revision, err := st.Put(ctx, store.Object{Key: store.Key{Kind: "TrafficPolicy", Namespace: "default", Name: "p"}, Value: policy}, store.Any)
		if err != nil {
			t.Fatal(err)
		}
		r.Reach(ctx, revision)
		if len(r.Index().Policies()) != 1 {
			t.Error("the index does not show what was waited for")
		}
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		r.Reach(soon, revision+1) // which never comes
		if soon.Err() == nil {
			t.Error("a revision that is not there was reached")
		}
	})
}

// TestPolicies: a policy names the services that it bears on, before and after it has changed; the mesh's defaults name all.
func TestPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := mem.New(100)
		defer st.Close()
		var changed []string
		r, err := routes.Start(ctx, routes.Config{Store: st, Log: slog.New(slog.DiscardHandler),
			Services: func() []model.ServiceName {
				return []model.ServiceName{{Namespace: "default", Name: "a"}, {Namespace: "default", Name: "b"}}
			},
			Changed: func(s []model.ServiceName, _ int64) {
				for _, n := range s {
					changed = append(changed, n.String())
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		expect := func(what string, do func() error, policies int, want ...string) {
			t.Helper()
			changed = nil
			if err := do(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if !slices.Equal(changed, want) || len(r.Index().Policies()) != policies {
				t.Errorf("%s: changed %v, want %v; %d policies", what, changed, want, len(r.Index().Policies()))
			}
		}
		put := func(o store.Object) func() error {
			return func() error { _, err := st.Put(ctx, o, store.Any); return err }
		}
		policy := func(target string) store.Object {
			return store.Object{Key: store.Key{Kind: "TrafficPolicy", Namespace: "default", Name: "p"},
				Value: []byte(`{"spec":{"targetRefs":[` + target + `],"retries":{"attempts":1}}}`)}
		}
		service := `{"group":"","kind":"Service","name":"web"}`
		route := `{"group":"gateway.networking.k8s.io","kind":"HTTPRoute","name":"r"}`
		expect("a route", put(object("r", "cart")), 0, "cart.default")
		expect("on a service", put(policy(service)), 1, "web.default")
		expect("from there to a route", put(policy(route)), 1, "web.default", "cart.default")
		expect("unreadable", put(store.Object{Key: policy("").Key, Value: []byte("{")}), 0, "cart.default")
		expect("readable again", put(policy(route)), 1, "cart.default")
		expect("deleted", func() error { _, err := st.Delete(ctx, policy("").Key, store.Any); return err }, 0, "cart.default")
		mesh := store.Object{Key: store.Key{Kind: "MeshConfig", Name: "mesh"}, Value: []byte(`{"spec":{"defaults":{"retries":{}}}}`)}
		expect("defaults of the mesh", put(mesh), 0, "a.default", "b.default")
		expect("a service is none of ours", put(store.Object{Key: store.Key{Kind: "Service", Namespace: "default", Name: "x"}, Value: []byte("{}")}), 0)
	})
}

// TestBeside: what routes refer to is followed too, and a change of it concerns the parents of the routes that do.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		st := mem.New(100)
		defer st.Close()
		var changed []string
		put := func(kind, namespace, name, spec string) {
			t.Helper()
			changed = nil
			if _, err := st.Put(ctx, store.Object{Key: store.Key{Kind: kind, Namespace: namespace, Name: name}, Value: []byte(`{"spec":` + spec + `}`)}, store.Any); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put("GRPCRoute", "shop", "calls", `{"parentRefs":[{"group":"","kind":"Service","name":"cart","namespace":"default"}],"rules":[{"backendRefs":[{"name":"b","namespace":"stock","port":1}],
			"filters":[{"type":"ExtensionRef","extensionRef":{"group":"tulle.dev","kind":"FaultInjection","name":"slow"}}]}]}`)
		put("TCPRoute", "default", "db", `{"parentRefs":[{"group":"","kind":"Service","name":"db"}],"rules":[{"backendRefs":[{"name":"b","port":1}]}]}`)
		r, err := routes.Start(ctx, routes.Config{Store: st, Log: slog.New(slog.DiscardHandler), Services: func() []model.ServiceName { return nil }, Changed: func(s []model.ServiceName, _ int64) {
			for _, n := range s {
				changed = append(changed, n.String())
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if n := len(r.Index().Routes()); n != 2 {
			t.Fatalf("%d routes", n)
		}
		for _, c := range []struct{ kind, namespace, name, spec, want string }{
			{"FaultInjection", "shop", "slow", `{"delay":{"duration":"1s"}}`, "cart.default"},
			{"FaultInjection", "shop", "other", `{"delay":{"duration":"1s"}}`, ""},
			{"FaultInjection", "default", "slow", `{"delay":{"duration":"1s"},"targetRefs":[{"kind":"TCPRoute","name":"db"}]}`, "db.default"},
			{"ReferenceGrant", "stock", "all", `{"from":[],"to":[]}`, "cart.default"},
			{"ReferenceGrant", "default", "all", `{"from":[],"to":[]}`, ""},
			{"TCPRoute", "default", "db", `{"parentRefs":[{"group":"","kind":"Service","name":"db2"}]}`, "db.default db2.default"},
		} {
			put(c.kind, c.namespace, c.name, c.spec)
			if got := strings.Join(changed, " "); got != c.want {
				t.Errorf("%s/%s/%s concerns %q, want %q", c.kind, c.namespace, c.name, got, c.want)
			}
		}
	})
}
