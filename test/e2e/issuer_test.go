//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// issuer is an OpenID provider.
type issuer struct {
	url string

	mu   sync.Mutex
	keys []jose.JSONWebKey // all are published; the last one is the next, what is signed is with the one before it
}

// serveIssuer runs an issuer: it says where its keys are, signs what POST /sign is given, and signs with its next key after
// POST /rotate. As providers do it publishes that one before.
func serveIssuer(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	i := &issuer{url: "http://" + l.Addr().String()}
	for range 2 {
		if err := i.rotate(); err != nil {
			return err
		}
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	})
	m.HandleFunc("GET /keys", i.publish)
	m.HandleFunc("POST /sign", i.sign)
	m.HandleFunc("POST /rotate", func(w http.ResponseWriter, _ *http.Request) {
		if err := i.rotate(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	fmt.Println(i.url)
	return http.Serve(l, m)
}

// issuerMain runs an issuer where its argument says, and prints where that is.
func issuerMain(args []string) error { return serveIssuer(args[0]) }

func (i *issuer) rotate() error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: k, KeyID: rand.Text(), Algorithm: "ES256", Use: "sig"})
	return nil
}

func (i *issuer) publish(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	json.NewEncoder(w).Encode(set)
}

func (i *issuer) sign(w http.ResponseWriter, r *http.Request) {
	claims, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	i.mu.Lock()
	key := i.keys[len(i.keys)-2]
	i.mu.Unlock()
	var s jose.Signer
	if err == nil {
		s, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	}
	var o *jose.JSONWebSignature
	if err == nil {
		o, err = s.Sign(claims)
	}
	text := ""
	if err == nil {
		text, err = o.CompactSerialize()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	io.WriteString(w, text)
}

// provider is an issuer that runs as a process of its own.
type provider struct {
	t   *testing.T
	url string
}

func startIssuer(t *testing.T) provider {
	t.Helper()
	p := start(t, "issuer", exec.Command(self(t), "issuer", "127.0.0.1:0"))
	eventually(t, patience, "the issuer listens", func() error {
		if !strings.HasPrefix(p.stdout(), "http://") || !strings.HasSuffix(p.stdout(), "\n") {
			return fmt.Errorf("%q", p.stdout())
		}
		return nil
	})
	return provider{t, strings.TrimSpace(p.stdout())}
}

func (p provider) post(path, body string) string {
	p.t.Helper()
	r, err := http.Post(p.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s %v %s", path, r.Status, err, text)
	}
	return string(text)
}

// token answers a token for alice that differs from a good one in some claims.
func (p provider) token(other map[string]any) string {
	p.t.Helper()
	claims := map[string]any{"iss": p.url, "sub": "alice", "aud": "shop", "group": []string{"staff", "admins"}, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range other {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.post("/sign", string(text))
}

// TestTokens: tokens of a real issuer are believed or not, tell the program who is there, and the issuer's keys may change under load.
func TestTokens(t *testing.T) {
	m := newMesh(t)
	published := freePort(t)
	m.httpbin("--publish", published)
	good, other := startIssuer(t), startIssuer(t)
	believe := func(issuer, more string) {
		m.apply(authenticate("tokens", fmt.Sprintf("{targetRefs: [{group: \"\", kind: Service, name: httpbin}], jwt: [{issuer: %q, audiences: [shop], required: true, claimHeaders: [{claim: sub, header: x-user}, {claim: group, header: x-groups}]%s}]}", issuer, more)))
	}
	believe(good.url, "")
	m.apply(authorize("admins", "httpbin", "  rules:\n  - when: [{claim: group, values: [admins]}]\n"))
	get := func(token string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+published+"/headers", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		r.Header.Set("x-user", "root")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return 0, err.Error()
		}
		return answer.StatusCode, answer.Header.Get("tulle-reason") + " " + string(text)
	}
	eventually(t, patience, "the keys are there", func() error {
		code, text := get(good.token(nil))
		if code != http.StatusOK || !strings.Contains(text, "alice") || !strings.Contains(text, "staff,admins") || strings.Contains(text, "root") {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
	signed := good.token(nil)
	head, rest, _ := strings.Cut(signed, ".")
	body, signature, _ := strings.Cut(rest, ".")
	for name, c := range map[string]struct {
		token string
		code  int
		why   string
	}{
		"none":                         {"", 401, "token_missing"},
		"expired":                      {good.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), 401, "token_invalid"},
		"not yet":                      {good.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), 401, "token_invalid"},
		"for somebody else":            {good.token(map[string]any{"aud": "bank"}), 401, "token_invalid"},
		"another issuer's":             {other.token(nil), 401, "token_invalid"},
		"another issuer's in its name": {other.token(map[string]any{"iss": good.url}), 401, "token_invalid"},
		"alg none":                     {"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + body + ".", 401, "token_invalid"},
		"another signature":            {head + "." + body + "." + strings.Repeat("A", len(signature)), 401, "token_invalid"},
		"no admin":                     {good.token(map[string]any{"group": []string{"staff"}}), 403, "authz_denied"},
	} {
		if code, text := get(c.token); code != c.code || !strings.HasPrefix(text, c.why) {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	said := m.ok(m.cli("explain", "--denied", "--last", "20"))
	for _, part := range []string{"refused   by AuthenticationPolicy/default/", ": the token has expired", ": the token is for another audience", ": a token is needed, and there is none", "names " + other.url + " as its issuer"} {
		if !strings.Contains(said, part) {
			t.Errorf("without %q:\n%s", part, said)
		}
	}
	// What was signed before stays good, and what is signed with the next key is good at once: no request fails.
	good.post("/rotate", "")
	next := good.token(nil)
	if strings.HasPrefix(next, head) {
		t.Error("it is the same key")
	}
	for _, token := range []string{signed, next, signed, next, good.token(nil)} {
		if code, text := get(token); code != http.StatusOK {
			t.Errorf("while the key changes: %d %s", code, text)
		}
	}
	// Keys in a file on the machine, of an issuer that cannot be asked.
	answer, err := http.Get(good.url + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	keys, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	const nowhere = "https://issuer.invalid"
	believe(nowhere, fmt.Sprintf(", jwksFile: %q", m.put("keys.json", keys)))
	eventually(t, patience, "tokens are verified with the keys of a file", func() error {
		if code, text := get(good.token(map[string]any{"iss": nowhere})); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
	if code, text := get(other.token(map[string]any{"iss": nowhere})); code != 401 {
		t.Errorf("a token by a key that is not in the file: %d %s", code, text)
	}
	believe(good.url, "")
	streamsEndWithTokens(t, m, good, other)
}

// streamsEndWithTokens: a WebSocket and a gRPC call end within a second after their token, and when its issuer is not believed any
// more; those of others, with tokens that are good, go on.
func streamsEndWithTokens(t *testing.T, m *mesh, good, other provider) {
	web, rpc := freePort(t), freePort(t)
	m.announced(m.run([]string{"--service", "talk", "--port", "8080", "--port", "9000/grpc", "--ready", "http:/healthz", "--publish", web + "=8080", "--publish", rpc + "=9000"}, self(t), "talk"))
	believe := func(p provider) {
		m.apply(authenticate("talk", fmt.Sprintf("{targetRefs: [{group: \"\", kind: Service, name: talk}], jwt: [{issuer: %q, audiences: [shop], required: true, clockSkew: 0s}]}", p.url)))
	}
	type end struct {
		name string
		at   time.Time
		err  error
	}
	ends := make(chan end, 4)
	talk := func(whose, token string, answered *atomic.Int64) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		for name, f := range map[string]func() error{
			"websocket": func() error { return talkWeb(ctx, "127.0.0.1:"+web, func() { answered.Add(1) }) },
			"grpc":      func() error { return talkRPC(ctx, "127.0.0.1:"+rpc, func() { answered.Add(1) }) },
		} {
			go func() {
				err := f()
				ends <- end{whose + " " + name, time.Now(), err}
			}()
		}
	}
	ended := func(whose string, after time.Time) {
		t.Helper()
		for range 2 {
			var e end
			select {
			case e = <-ends:
			case <-time.After(patience):
				t.Fatalf("the streams of %s go on", whose)
			}
			late := e.at.Sub(after)
			if !strings.HasPrefix(e.name, whose) || late < 0 || late > 5*time.Second { // a second, and what the policy and a busy machine take
				t.Errorf("%s has ended %v after: %v", e.name, late, e.err)
			}
			if strings.HasSuffix(e.name, "grpc") && (status.Code(e.err) != codes.Unauthenticated || !strings.Contains(e.err.Error(), "token")) {
				t.Errorf("the call of %s: %v", whose, e.err)
			}
			t.Logf("%s has ended %v after", e.name, late)
		}
	}
	believe(good)
	lasting := good.token(nil)
	eventually(t, patience, "the keys are there", func() error {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+web+"/healthz", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+lasting)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
	var stays, goes atomic.Int64
	talk("the lasting token", lasting, &stays)
	over := time.Unix(time.Now().Unix()+4, 0)
	talk("the short token", good.token(map[string]any{"exp": over.Unix()}), &goes)
	ended("the short token", over)
	if goes.Load() == 0 {
		t.Error("nothing was said with the short token")
	}
	before := stays.Load()
	eventually(t, patience, "the others talk", func() error {
		if n := stays.Load(); n < before+20 {
			return fmt.Errorf("%d since", n-before)
		}
		return nil
	})
	replaced := time.Now()
	believe(other)
	ended("the lasting token", replaced)
}
