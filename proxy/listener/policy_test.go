package listener_test

import (
	"net"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// policed is a world whose server's proxy has policies.
func policed(t *testing.T, policies ...model.Policy) (*world, *policy.InForce) {
	t.Helper()
	in := policy.New(policy.Config{})
	w := buildWorld(t, func(w *world, cfg *listener.Config) {
		w.relays = relay.New(relay.Config{Loop: w.loop, Observer: w, Policies: in})
		cfg.Relays, cfg.Policies = w.relays, in
	})
	enforce(t, in, policies...)
	return w, in
}

func enforce(t *testing.T, in *policy.InForce, policies ...model.Policy) {
	t.Helper()
	if err := in.Set(&model.Security{Policies: policies}); err != nil {
		t.Fatal(err)
	}
}

func exact(v string) []model.StringMatch {
	return []model.StringMatch{{Kind: model.StringExact, Value: v}}
}

// to is a policy about what a service account may reach.
func to(action model.Action, account string, target ...model.PolicyTarget) model.Policy {
	return model.Policy{Name: "AuthorizationPolicy/default/p", Action: action, Rules: []model.PolicyRule{{Name: "r",
		From: []model.PolicySource{{Accounts: exact(account)}}, To: target}}}
}

// unreached fails if the program gets a connection.
func (w *world) unreached() {
	w.t.Helper()
	_ = w.program.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if c, err := w.program.Accept(); err == nil {
		c.Close()
		w.t.Error("the program was reached")
	}
}

// denied waits for the record of a connection that was refused or ended.
func (w *world) denied(reason string) {
	w.t.Helper()
	w.until("a record of the refusal: "+reason, func() bool {
		for _, r := range w.records {
			if r.Direction == record.Inbound && r.Reason == reason && (reason != "authz_denied" || r.Decision.Verdict == record.Denied) {
				return true
			}
		}
		return false
	})
}

// TestPolicyConnections: a relay between proxies is let in by who its caller is, before the program hears of it; where requests
// are looked at, nothing passes that is none.
func TestPolicyConnections(t *testing.T) {
	for name, c := range map[string]struct {
		policies []model.Policy
		reason   string // "": allowed
	}{
		"allowed":            {[]model.Policy{to(model.ActionAllow, "default/web")}, ""},
		"another port":       {[]model.Policy{to(model.ActionAllow, "default/web", model.PolicyTarget{Ports: []uint16{3307}})}, "authz_denied"},
		"nobody allows it":   {[]model.Policy{to(model.ActionAllow, "default/other")}, "authz_denied"},
		"denied":             {[]model.Policy{to(model.ActionDeny, "default/web")}, "authz_denied"},
		"requests looked at": {[]model.Policy{to(model.ActionAllow, "default/web"), to(model.ActionAllow, "default/x", model.PolicyTarget{Methods: exact("GET")})}, "not_http"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := policed(t, c.policies...)
			w.port.protocol = model.ProtocolTCP
			at := w.captured(w.vip)
			if c.reason == "" {
				client := w.dial(at)
				write(t, client, "select")
				read(t, w.arrives(), "select")
				return
			}
			w.dialReset(at)
			w.unreached()
			w.denied(c.reason)
		})
	}
}

// TestPolicyChange: a relay that is open ends when a policy comes that does not allow it, both ways, and only then.
func TestPolicyChange(t *testing.T) {
	w, in := policed(t)
	w.port.protocol = model.ProtocolTCP
	client := w.outbound(w.vip)
	server := w.arrives()
	write(t, client, "a")
	read(t, server, "a")
	enforce(t, in, to(model.ActionAllow, "default/web"))
	w.do(w.relays.Review)
	write(t, server, "b")
	read(t, client, "b")
	enforce(t, in, to(model.ActionDeny, "default/web"))
	w.do(w.relays.Review)
	wantReset(t, client)
	wantReset(t, server)
	w.denied("authz_denied")
}

// TestPolicyServerName: the server name of the program's own TLS decides, also when the ClientHello comes in pieces.
func TestPolicyServerName(t *testing.T) {
	w, _ := policed(t, to(model.ActionAllow, "default/web", model.PolicyTarget{ServerNames: exact("db.example")}))
	w.port.protocol = model.ProtocolTLS
	at := w.captured(w.vip)
	hello := helloFor(t, "db.example")
	client := w.dial(at)
	write(t, client, hello[:40])
	w.unreached()
	write(t, client, hello[40:])
	read(t, w.arrives(), hello)
	for _, other := range []string{helloFor(t, "evil.example"), "no TLS at all"} {
		client := w.dial(at)
		write(t, client, other)
		wantReset(t, client)
	}
	w.unreached()
	w.denied("authz_denied")
}

// TestPolicyPublished: who comes from outside has no identity, and is let in by what is left to say about it.
func TestPolicyPublished(t *testing.T) {
	w, in := policed(t, to(model.ActionAllow, "default/web"))
	w.port.protocol = model.ProtocolTCP
	at := w.accept(w.worker.Publish(8080, 0))
	w.dialReset(at)
	w.denied("authz_denied")
	enforce(t, in, model.Policy{Name: "p", Action: model.ActionAllow, Rules: []model.PolicyRule{{From: []model.PolicySource{{IPs: []string{"127.0.0.0/8"}}}}}})
	_ = w.program.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
	if c, err := w.program.Accept(); err == nil {
		c.Close() // the one that was refused
	}
	client := w.dial(at)
	write(t, client, "hello")
	read(t, w.arrives(), "hello")
}
