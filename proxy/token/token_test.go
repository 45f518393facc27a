package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/token"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// signer is an issuer in a test.
type signer struct {
	key ed25519.PrivateKey
	kid string
}

func newSigner(t *testing.T, kid string) signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, kid}
}

// sign makes a token of claims, and of an end if they have none.
func (s signer) sign(t *testing.T, claims string) string {
	t.Helper()
	if !strings.Contains(claims, `"exp"`) {
		claims = strings.TrimSuffix(claims, "}") + `,"exp":99999999999}`
	}
	return s.endless(t, claims)
}

func (s signer) endless(t *testing.T, claims string) string {
	t.Helper()
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: s.key, KeyID: s.kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := made.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func set(t *testing.T, list ...signer) string {
	t.Helper()
	var s jose.JSONWebKeySet
	for _, one := range list {
		s.Keys = append(s.Keys, jose.JSONWebKey{Key: one.key.Public(), KeyID: one.kid})
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func bearer() []model.TokenPlace {
	return []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}}
}

func guard(t *testing.T, r *Ring, list ...model.TokenIssuer) *Guard {
	t.Helper()
	for i := range list {
		list[i].Algorithms = []string{"EdDSA"}
		if list[i].From == nil {
			list[i].From = bearer()
		}
	}
	all, keep, err := r.Guards(&model.Security{Tokens: list}, nil, []uint16{80})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	return all[80]
}

func request(target string, fields ...string) *message.Head {
	h := &message.Head{Method: []byte("GET"), Target: []byte(target)}
	for i := 0; i+1 < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

func ask(g *Guard, c *Cache, h *message.Head) Answer {
	path, _, _ := strings.Cut(string(h.Target), "?")
	return g.Ask(c, h, []byte(path), time.Now(), true)
}

func TestPlaces(t *testing.T) {
	a, b := newSigner(t, "a"), newSigner(t, "b")
	r := NewRing(Config{})
	defer r.Close()
	g := guard(t, r,
		model.TokenIssuer{Issuer: "a", Keys: set(t, a), RequiredPaths: []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/need"}}}},
		model.TokenIssuer{Issuer: "b", Keys: set(t, b), From: []model.TokenPlace{{Query: "t"}, {Cookie: "s"}, {Header: "x-token"}}})
	of, other := a.sign(t, `{"iss":"a","sub":"s"}`), b.sign(t, `{"iss":"b","sub":"s"}`)
	for name, c := range map[string]struct {
		h    *message.Head
		want failure.Reason
		who  string
	}{
		"none":                     {request("/"), failure.None, ""},
		"none where needed":        {request("/needed"), failure.TokenMissing, ""},
		"other scheme":             {request("/needed", "Authorization", "Basic abc"), failure.TokenMissing, ""},
		"bearer":                   {request("/needed", "Authorization", "Bearer "+of), failure.None, "a/s"},
		"bearer in another case":   {request("/", "AUTHORIZATION", "bearer  "+of), failure.None, "a/s"},
		"twice the same":           {request("/", "authorization", "Bearer "+of, "authorization", "Bearer "+of), failure.None, "a/s"},
		"two":                      {request("/", "authorization", "Bearer "+of, "authorization", "Bearer "+other), failure.TokenInvalid, ""},
		"two in different places":  {request("/?t="+other, "authorization", "Bearer "+of), failure.TokenInvalid, ""},
		"query":                    {request("/needed?x=1&t=" + other), failure.None, "b/s"},
		"query, name encoded":      {request("/?%74=" + other), failure.None, "b/s"},
		"query, value encoded":     {request("/?t=%65" + other[1:]), failure.TokenInvalid, ""},
		"cookie":                   {request("/", "cookie", "a=1; s="+other), failure.None, "b/s"},
		"own header":               {request("/", "X-Token", other), failure.None, "b/s"},
		"where it does not belong": {request("/", "authorization", "Bearer "+other), failure.TokenInvalid, ""},
		"opaque":                   {request("/", "authorization", "Bearer abc"), failure.TokenInvalid, ""},
		"of nobody":                {request("/", "authorization", "Bearer "+a.sign(t, `{"iss":"c"}`)), failure.TokenInvalid, ""},
		"of the other":             {request("/", "x-token", a.sign(t, `{"iss":"b"}`)), failure.TokenInvalid, ""},
	} {
		c1 := &Cache{}
		for range 2 { // the second time it is known
			got := ask(g, c1, c.h)
			who := ""
			if got.Token != nil {
				who = got.Token.Principal
			}
			if got.Reason != c.want || who != c.who {
				t.Errorf("%s: %v %q (%v), expected %v %q", name, got.Reason, who, got.Why, c.want, c.who)
			}
		}
	}
	// What was believed in one place is not believed in another.
	c := &Cache{}
	if got := ask(g, c, request("/?t="+other)); got.Token == nil {
		t.Fatal(got.Why)
	}
	if got := ask(g, c, request("/", "authorization", "Bearer "+other)); got.Reason != failure.TokenInvalid {
		t.Error("a token that is known is believed where it does not belong")
	}
	pre := request("/needed", "origin", "https://a", "access-control-request-method", "PUT")
	pre.Method = []byte("OPTIONS")
	if got := ask(g, &Cache{}, pre); got.Reason != failure.None {
		t.Errorf("preflight: %v", got.Reason)
	}
}

func TestDress(t *testing.T) {
	s := newSigner(t, "a")
	r := NewRing(Config{})
	defer r.Close()
	m := model.TokenIssuer{Issuer: "a", Keys: set(t, s), From: []model.TokenPlace{bearer()[0], {Query: "t"}, {Cookie: "s"}},
		ClaimHeaders: []model.ClaimHeader{{Claim: "sub", Header: "x-user"}, {Claim: "roles", Header: "x-roles"}, {Claim: "bad", Header: "x-bad"}}}
	g := guard(t, r, m)
	raw := s.sign(t, `{"iss":"a","sub":"alice","roles":["a","b,admin","c"],"bad":"x\r\ny: z"}`)
	told := func(h *message.Head) string {
		out := string(h.Target)
		for _, f := range h.Fields {
			out += "|" + string(f.Name) + "=" + string(f.Value)
		}
		return out
	}
	for _, c := range []struct {
		h    *message.Head
		want string
	}{
		{request("/", "x-user", "root", "X_User", "root", "x.user", "root", "x-users", "kept"), "/|x-users=kept"},
		{request("/?a=1&t="+raw+"&b=2", "X-Roles", "admin"), "/?a=1&b=2|x-user=alice|x-roles=a,c"},
		{request("/?t=" + raw), "/|x-user=alice|x-roles=a,c"},
		{request("/", "authorization", "Bearer "+raw, "x-bad", "1"), "/|x-user=alice|x-roles=a,c"},
		{request("/", "cookie", "a=1; s="+raw+";b=2"), "/|cookie=a=1; b=2|x-user=alice|x-roles=a,c"},
		{request("/", "cookie", "s="+raw), "/|x-user=alice|x-roles=a,c"},
	} {
		a := ask(g, &Cache{}, c.h)
		if a.Reason != failure.None {
			t.Fatalf("%s: %v", c.want, a.Why)
		}
		g.Dress(c.h, a.Token, nil)
		if got := told(c.h); got != c.want {
			t.Errorf("%s, expected %s", got, c.want)
		}
	}
	m.Forward = true
	g = guard(t, r, m)
	h := request("/", "authorization", "Bearer "+raw)
	a := ask(g, &Cache{}, h)
	g.Dress(h, a.Token, nil)
	if !strings.Contains(told(h), raw) {
		t.Error("a token that is forwarded is not")
	}
}

// TestAllocations: a token that is known costs no memory, nor does a request without one.
func TestAllocations(t *testing.T) {
	s := newSigner(t, "a")
	r := NewRing(Config{})
	defer r.Close()
	g := guard(t, r, model.TokenIssuer{Issuer: "a", Keys: set(t, s), ClaimHeaders: []model.ClaimHeader{{Claim: "sub", Header: "x-user"}},
		RequiredPaths: []model.PolicyPath{{Match: model.StringMatch{Value: "/needed"}}}})
	raw := s.sign(t, `{"iss":"a","sub":"s","exp":99999999999}`)
	c, now, path := &Cache{}, time.Now(), []byte("/")
	field := message.Field{Name: []byte("authorization"), Value: []byte("Bearer " + raw)}
	h := &message.Head{Method: []byte("GET"), Target: path, Fields: make([]message.Field, 0, 8)}
	for name, n := range map[string]int{"with a token": 1, "without": 0} {
		if got := testing.AllocsPerRun(200, func() {
			if h.Fields = h.Fields[:0]; n == 1 {
				h.Fields = append(h.Fields, field)
			}
			a := g.Ask(c, h, path, now, true)
			if a.Reason != failure.None {
				t.Fatal(a.Why)
			}
			g.Dress(h, a.Token, nil)
		}); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := &Cache{}
	for i := range 3 * maxSeen {
		var sum [32]byte
		sum[0], sum[1] = byte(i), byte(i>>8)
		c.put(sum, &Verified{})
	}
	if len(c.seen) > maxSeen {
		t.Errorf("%d tokens are remembered", len(c.seen))
	}
}

// posts is a loop that runs what is posted at once.
type posts struct{ loop.Loop }

func (posts) Post(f func()) bool { f(); return true }

// TestRotation: an unknown key has the set fetched again, not more often than a bound; a key that is gone is not believed any more,
// also in tokens that are known; while the issuer cannot be reached, the keys before are used.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner(t, "old"), newSigner(t, "next")
		var mu sync.Mutex
		now, fetches, broken := set(t, old), 0, false
		asked := make(chan struct{}) // the first answer comes after the first request
		var changed atomic.Int64
		r := NewRing(Config{Changed: func() { changed.Add(1) }, Fetch: func(context.Context, *model.TokenIssuer) ([]byte, error) {
			<-asked
			mu.Lock()
			defer mu.Unlock()
			fetches++
			if broken {
				return nil, errors.New("away")
			}
			return []byte(now), nil
		}})
		defer r.Close()
		change := func(text string, b bool) {
			mu.Lock()
			defer mu.Unlock()
			now, broken = text, b
		}
		g := guard(t, r, model.TokenIssuer{Issuer: "a"})
		c := &Cache{}
		tokenOf := func(s signer) *message.Head { return request("/", "authorization", "Bearer "+s.sign(t, `{"iss":"a"}`)) }
		if a := ask(g, c, tokenOf(old)); a.Wait == nil {
			t.Fatalf("keys are not awaited: %v", a.Reason)
		}
		close(asked)
		synctest.Wait()
		if a := ask(g, c, tokenOf(old)); a.Token == nil {
			t.Fatal(a.Reason, a.Why)
		}
		change(set(t, old, next), false)
		if a := ask(g, c, tokenOf(next)); a.Wait != nil || a.Reason != failure.TokenInvalid {
			t.Error("an unknown key has keys fetched again at once")
		}
		time.Sleep(10 * time.Second) // virtual
		a := ask(g, c, tokenOf(next))
		if a.Wait == nil {
			t.Fatal("an unknown key does not have keys fetched again")
		}
		told := 0
		for range 3 {
			if !a.Wait.Wait(posts{}, func() { told++ }) {
				t.Fatal("no room to wait")
			}
		}
		synctest.Wait()
		if told != 3 || fetches != 2 {
			t.Errorf("%d told, %d fetches", told, fetches)
		}
		if a := ask(g, c, tokenOf(next)); a.Token == nil {
			t.Fatal(a.Reason, a.Why)
		}
		lasting := ask(g, c, tokenOf(old)).Token
		if n := changed.Load(); n != 1 {
			t.Errorf("told %d times, not once for the first keys and never for one more", n)
		}
		change("", true)
		time.Sleep(time.Hour) // virtual
		if a := ask(g, c, tokenOf(old)); a.Token == nil {
			t.Error("an issuer that is away has its tokens refused", a.Why)
		}
		change(set(t, next), false)
		time.Sleep(5 * time.Minute) // virtual
		if a := ask(g, c, tokenOf(old)); a.Token != nil {
			t.Error("a key that was taken out is still believed")
		}
		if _, err := g.Still(lasting, time.Now()); !errors.Is(err, token.ErrNoKey) || changed.Load() != 2 {
			t.Errorf("what is open when its key is taken out: %v, told %d times", err, changed.Load())
		}
		if a := ask(guard(t, r, model.TokenIssuer{Issuer: "a"}), c, tokenOf(next)); a.Token == nil {
			t.Error("keys are lost when policies change")
		}
		before := fetches
		_, keep, err := r.Guards(&model.Security{}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		keep()
		time.Sleep(time.Hour) // virtual
		if fetches > before {
			t.Error("keys that nobody wants are fetched")
		}
	})
}

func TestFetch(t *testing.T) {
	s := newSigner(t, "a")
	says := ""
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"issuer":"` + says + `","jwks_uri":"` + srv.URL + `/keys"}`))
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(set(t, s))) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 2<<20)) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://issuer.example/keys", http.StatusFound)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	fetch := func(m model.TokenIssuer) error {
		_, err := Fetch(t.Context(), &m)
		return err
	}
	says = srv.URL
	if err := fetch(model.TokenIssuer{Issuer: srv.URL}); err != nil {
		t.Error(err)
	}
	says = "https://other.example"
	if err := fetch(model.TokenIssuer{Issuer: srv.URL}); err == nil {
		t.Error("a configuration of another issuer is taken")
	}
	for path, want := range map[string]string{"/keys": "", "/large": "more than", "/away": "https", "/round": "too often", "/none": "404"} {
		err := fetch(model.TokenIssuer{Issuer: "x", KeysURL: srv.URL + path})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, expected %q", path, err, want)
		}
	}
	for _, at := range []string{"http://issuer.example/keys", "file:///etc/passwd", "ftp://x/y", "http://127.0.0.1.example/keys"} {
		if err := fetch(model.TokenIssuer{KeysURL: at}); err == nil || !strings.Contains(err.Error(), "https") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// TestFile: keys in a file are read, also when they were replaced; a file that is not good leaves those before in use.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newSigner(t, "old"), newSigner(t, "next")
		name := filepath.Join(t.TempDir(), "keys.json")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(set(t, old))
		r := NewRing(Config{})
		defer r.Close()
		g, c := guard(t, r, model.TokenIssuer{Issuer: "a", KeysFile: name}), &Cache{}
		tokenOf := func(s signer) *message.Head { return request("/", "authorization", "Bearer "+s.sign(t, `{"iss":"a"}`)) }
		synctest.Wait()
		if a := ask(g, c, tokenOf(old)); a.Token == nil {
			t.Fatal(a.Reason, a.Why)
		}
		write("{")
		time.Sleep(time.Hour) // virtual
		if a := ask(g, c, tokenOf(old)); a.Token == nil {
			t.Error("a file that is no key set takes the keys before out of use", a.Why)
		}
		write(set(t, next))
		time.Sleep(time.Minute) // virtual
		if a := ask(g, c, tokenOf(next)); a.Token == nil {
			t.Error(a.Reason, a.Why)
		}
		if a := ask(g, c, tokenOf(old)); a.Token != nil {
			t.Error("a key that was taken out is still believed")
		}
		write(set(t, old, next))
		time.Sleep(fileEvery) // virtual
		if a := ask(g, c, tokenOf(old)); a.Token == nil {
			t.Error("it is not read again as soon as it is said", a.Why)
		}
		dir := t.TempDir()
		large := filepath.Join(dir, "large")
		if err := os.WriteFile(large, make([]byte, token.MaxKeySet+1), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{dir: "plain file", large: "more than", filepath.Join(dir, "none"): "no such file"} {
			if _, err := Fetch(t.Context(), &model.TokenIssuer{KeysFile: name}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestEndless: a token that never ends is refused, unless its issuer's policy takes such.
func TestEndless(t *testing.T) {
	s := newSigner(t, "a")
	r := NewRing(Config{})
	defer r.Close()
	for _, take := range []bool{false, true} {
		g := guard(t, r, model.TokenIssuer{Issuer: "a", Keys: set(t, s), Endless: take})
		c := &Cache{}
		for range 2 { // the second time it is known
			a := ask(g, c, request("/", "authorization", "Bearer "+s.endless(t, `{"iss":"a","sub":"s"}`)))
			if (a.Token != nil) != take || !take && !errors.Is(a.Why, token.ErrEndless) {
				t.Errorf("taken %v: %v %v", take, a.Reason, a.Why)
			}
		}
		if a := ask(g, c, request("/", "authorization", "Bearer "+s.sign(t, `{"iss":"a","sub":"s"}`))); a.Token == nil {
			t.Errorf("taken %v, one that ends: %v", take, a.Why)
		}
	}
}

// TestRedact: no token stays in what is recorded of a target; it costs nothing where there is none.
func TestRedact(t *testing.T) {
	s := newSigner(t, "a")
	r := NewRing(Config{})
	defer r.Close()
	with := guard(t, r, model.TokenIssuer{Issuer: "a", Keys: set(t, s), From: []model.TokenPlace{{Query: "t k"}, {Header: "x-t"}, {Cookie: "c"}}})
	for _, c := range []struct {
		g         *Guard
		in, wants string
	}{
		{nil, "/a", "/a"}, {nil, "/eyJ", "/eyJ"}, {nil, "/a?b=c&t+k=x", "/a?b=c&t+k=x"},
		{nil, "/a?b=eyJhbGciOi.x.y&c=d", "/a?b=redacted&c=d"}, {nil, "/a?b=c&eyJ", "/a?b=c&eyJ"},
		{with, "/a?t+k=x&b=c", "/a?t+k=redacted&b=c"}, {with, "/a?b=c&%74%20k=x", "/a?b=c&%74%20k=redacted"}, {with, "/a?t+k=&t+k", "/a?t+k=&t+k"},
		{with, "/a?b=Bearer%20eyJx", "/a?b=redacted"},
	} {
		if got, _ := c.g.Redact([]byte(c.in), nil); string(got) != c.wants {
			t.Errorf("%s: %s, want %s", c.in, got, c.wants)
		}
	}
	for kind, name := range map[model.ConditionKind]string{model.ConditionQuery: "t k", model.ConditionHeader: "x-t", model.ConditionCookie: "c"} {
		if !with.Secret(kind, name) || with.Secret(kind, "other") || (*Guard)(nil).Secret(kind, name) {
			t.Errorf("secrets of kind %d", kind)
		}
	}
	target, memory := []byte("/a?b=c"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { (*Guard)(nil).Redact(target, memory); with.Redact(target, memory) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
