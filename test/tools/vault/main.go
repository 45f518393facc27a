// Command vault serves Vault's API over TLS: "vault ADDRESS CERT KEY" is the core of Vault with its HTTP handler, its PKI engine, its AppRole
// and its storage in memory, put together without the other engines, which are most of the whole program. It is neither initialized nor
// unsealed: whoever asks does that over the API, and everything else too. It ends with the process. Vault is under the Business Source License:
// nothing of it is in this repository, this only calls it, and it is built only when somebody asks for it.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	log "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/pki"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	if len(os.Args) != 4 {
		fail(errors.New("usage: vault ADDRESS CERT KEY"))
	}
	fail(serve(os.Args[1], os.Args[2], os.Args[3]))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(address, cert, key string) error {
	logger := log.New(&log.LoggerOptions{Name: "vault", Level: log.Info, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return err
	}
	has := builtin{consts.PluginTypeSecrets: {"pki": pki.Factory}, consts.PluginTypeCredential: {"approle": approle.Factory}}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: storage, StorageType: "inmem", Logger: logger, DisableMlock: true, BuiltinRegistry: has,
		LogicalBackends: has[consts.PluginTypeSecrets], CredentialBackends: has[consts.PluginTypeCredential],
	})
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              address,
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{Address: address}}),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, // as the whole program has them
		ErrorLog: logger.StandardLogger(nil),
	}
	return server.ListenAndServeTLS(cert, key)
}

// builtin is what Vault's catalog of plugins has, by kind and name.
type builtin map[consts.PluginType]map[string]logical.Factory

func (b builtin) Contains(name string, kind consts.PluginType) bool { return b[kind][name] != nil }

func (b builtin) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	f := b[kind][name]
	return func() (any, error) { return f, nil }, f != nil
}

func (b builtin) Keys(kind consts.PluginType) (names []string) {
	for name := range b[kind] {
		names = append(names, name)
	}
	return names
}

func (b builtin) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b[kind][name] != nil
}

func (builtin) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
