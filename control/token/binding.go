package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/control/store"
)

const bindingKind = "Binding"

// maxServices bounds what one service account may serve.
const maxServices = 64

// Binding is what a service account may serve besides the service of its own name: whoever owns the mesh has said so, with a join
// token or by starting such a workload on the control plane's machine.
type Binding struct {
	Namespace      string   `json:"namespace"`
	ServiceAccount string   `json:"serviceAccount"`
	Services       []string `json:"services"`
}

// ErrBound is in the error of Serves.
var ErrBound = errors.New("may not serve")

func bindingKey(namespace, account string) store.Key {
	return store.Key{Kind: bindingKind, Namespace: namespace, Name: account}
}

// Bind lets a service account serve a service.
func (t *Tokens) Bind(ctx context.Context, namespace, account, service string) error {
	if account == service {
		return nil
	}
	return t.rebind(ctx, namespace, account, func(list []string) ([]string, error) {
		switch {
		case slices.Contains(list, service):
			return list, nil
		case len(list) >= maxServices:
			return nil, fmt.Errorf("service account %s in namespace %s serves %d services already", account, namespace, len(list))
		}
		list = append(slices.Clone(list), service)
		slices.Sort(list)
		return list, nil
	})
}

// Unbind takes that back, or answers store.ErrNotFound.
func (t *Tokens) Unbind(ctx context.Context, namespace, account, service string) error {
	return t.rebind(ctx, namespace, account, func(list []string) ([]string, error) {
		i := slices.Index(list, service)
		if i < 0 {
			return nil, fmt.Errorf("service account %s in namespace %s is not bound to service %s: %w", account, namespace, service, store.ErrNotFound)
		}
		return slices.Delete(slices.Clone(list), i, i+1), nil
	})
}

// rebind changes the list of an account; an empty one is removed.
func (t *Tokens) rebind(ctx context.Context, namespace, account string, change func([]string) ([]string, error)) error {
	for {
		var b Binding
		cond := store.Absent
		o, err := t.store.Get(ctx, bindingKey(namespace, account))
		switch {
		case err == nil:
			if err := json.Unmarshal(o.Value, &b); err != nil {
				return err
			}
			cond = store.At(o.Revision)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		list, err := change(b.Services)
		if err != nil || slices.Equal(list, b.Services) {
			return err
		}
		if len(list) == 0 {
			_, err = t.store.Delete(ctx, bindingKey(namespace, account), cond)
		} else {
			value, encoding := json.Marshal(Binding{Namespace: namespace, ServiceAccount: account, Services: list})
			if encoding != nil {
				return encoding
			}
			_, err = t.store.Put(ctx, store.Object{Key: bindingKey(namespace, account), Value: value}, cond)
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// Serves reports, with ErrBound, that a service account may not serve a service. The one of its own name it always may.
func (t *Tokens) Serves(ctx context.Context, namespace, account, service string) error {
	if account == service {
		return nil
	}
	o, err := t.store.Get(ctx, bindingKey(namespace, account))
	var b Binding
	if err == nil {
		err = json.Unmarshal(o.Value, &b)
	}
	switch {
	case err == nil && slices.Contains(b.Services, service):
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	return fmt.Errorf("service account %s in namespace %s %w %s: let it join with a token of 'tulle token --service %[4]s --service-account %[1]s'", account, namespace, ErrBound, service)
}

// Bindings answers all.
func (t *Tokens) Bindings(ctx context.Context) ([]Binding, error) {
	objects, _, err := t.store.List(ctx, bindingKind, "")
	if err != nil {
		return nil, err
	}
	list := []Binding{}
	for _, o := range objects {
		var b Binding
		if err := json.Unmarshal(o.Value, &b); err != nil {
			return nil, fmt.Errorf("binding of %s/%s: %w", o.Namespace, o.Name, err)
		}
		list = append(list, b)
	}
	return list, nil
}
