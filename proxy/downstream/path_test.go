package downstream_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// TestPathsHaveOneSpelling: however a path is written, a policy that denies it does, and the program gets what was judged.
func TestPathsHaveOneSpelling(t *testing.T) {
	var mu sync.Mutex
	var got []string
	program := addrOf(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.RequestURI)
	}))
	admin := []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringExact, Value: "/admin"}}, {Match: model.StringMatch{Kind: model.StringPrefix, Value: "/admin/"}}}
	p, _ := policed(t, program, io.Discard, only(model.ActionDeny, "admin", model.PolicyRule{Name: "r", To: []model.PolicyTarget{{Paths: admin}}}))
	ask := func(target string) string {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n", target)
		b, _ := io.ReadAll(c)
		status, _, _ := strings.Cut(strings.TrimPrefix(string(b), "HTTP/1.1 "), " ")
		return status
	}
	for target, want := range map[string]string{
		"/admin": "403", "/admin/x": "403", "//admin": "403", "/%61dmin": "403", "/x/../admin": "403", "/./admin": "403", "/%2e/admin": "403", "/x/%2E%2e/admin": "403",
		"/admin?x": "403", "/admin//x": "403", "http://cart/%61dmin": "403", "/%2fadmin": "400", "/x/..%2fadmin": "400", "/x/..;/admin": "400", "/admin;x": "400", "/x\\..\\admin": "400",
		"/%5cadmin": "400", "/%00/admin": "400", "/%c0%afadmin": "400", "/%2561dmin": "400", "/\xffadmin": "400",
	} {
		if status := ask(target); status != want {
			t.Errorf("%s: %s, want %s", target, status, want)
		}
	}
	if len(got) > 0 {
		t.Errorf("the program got %q", got)
	}
	for target, want := range map[string]string{"/shop//a/../b%41?q=%2f//": "/shop/bA?q=%2f//", "/caf\xc3\xa9": "/caf%C3%A9", "/administrator": "/administrator"} {
		if status := ask(target); status != "200" || got[len(got)-1] != want {
			t.Errorf("%s: %s, the program got %q", target, status, got)
		}
	}
}
