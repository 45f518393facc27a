//go:build conformance && vault

package vault

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// api is Vault's HTTP API.
type api struct {
	address, token string
	http           *http.Client
}

func newAPI(address, caFile, token string) (*api, error) {
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate", caFile)
	}
	return &api{address: address, token: token, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}}, nil
}

// answer is what every path answers.
type answer struct {
	Data map[string]any `json:"data"`
	Auth struct {
		Token string `json:"client_token"`
	} `json:"auth"`
	// Those below are of paths that have no data.
	Keys      []string `json:"keys"`
	RootToken string   `json:"root_token"`
	Sealed    bool     `json:"sealed"`
}

// field answers one as text; "": there is none.
func (a answer) field(name string) string {
	if name == "token" {
		return a.Auth.Token
	}
	s, _ := a.Data[name].(string)
	return s
}

func (a *api) do(method, path string, body any) (out answer, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequest(method, a.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return out, err
	}
	req.Header.Set("X-Vault-Token", a.token)
	res, err := a.http.Do(req)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return out, err
	}
	if res.StatusCode/100 != 2 {
		return out, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, got)
	}
	if len(got) > 0 {
		err = json.Unmarshal(got, &out)
	}
	return out, err
}

// TestMain makes the test the program "vault" as well, under that name: Vault's own program is not built for it, and the guide calls it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "vault" {
		os.Exit(m.Run())
	}
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// command does what the guide has "vault" do: secrets enable, auth enable, write, read, policy write and token create.
func command(args []string) error {
	a, err := newAPI(os.Getenv("VAULT_ADDR"), os.Getenv("VAULT_CACERT"), os.Getenv("VAULT_TOKEN"))
	if err != nil {
		return err
	}
	var words []string
	options, fields := map[string]string{}, map[string]any{}
	for _, arg := range args {
		option, isOption := strings.CutPrefix(arg, "-")
		name, value, has := strings.Cut(option, "=")
		switch {
		case isOption && option != "":
			options[name] = value
		case has:
			fields[name] = value
		default:
			words = append(words, arg)
		}
	}
	var out answer
	switch verb := strings.Join(words[:min(2, len(words))], " "); {
	case verb == "auth enable" && len(words) == 3:
		out, err = a.do(http.MethodPost, "sys/auth/"+words[2], map[string]any{"type": words[2]})
	case verb == "policy write" && len(words) == 4 && words[3] == "-":
		var policy []byte
		if policy, err = io.ReadAll(os.Stdin); err == nil {
			out, err = a.do(http.MethodPut, "sys/policies/acl/"+words[2], map[string]any{"policy": string(policy)})
		}
	case verb == "token create" && len(words) == 2:
		out, err = a.do(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{options["policy"]}})
	case len(words) == 2 && words[0] == "write":
		out, err = a.do(http.MethodPut, words[1], fields)
	case len(words) == 2 && words[0] == "read":
		out, err = a.do(http.MethodGet, words[1], nil)
	default:
		err = fmt.Errorf("vault %s: not known", strings.Join(args, " "))
	}
	if name := options["field"]; err == nil && name != "" {
		text := out.field(name)
		if text == "" {
			err = errors.New("no field " + name)
		}
		fmt.Print(text)
	}
	return err
}
