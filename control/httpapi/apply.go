package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/store"
)

// serveApply reads, checks and stores files: all of them, or nothing.
func (a *API) serveApply(r *http.Request) (any, error) {
	var req ApplyRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	docs, err := decodeAll(req.Files)
	if err != nil {
		return nil, err
	}
	// One at a time: the references of one are checked against what the other has stored.
	select {
	case a.apply <- struct{}{}:
		defer func() { <-a.apply }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	for try := 0; ; try++ {
		result, err := a.applyOnce(r.Context(), &req, docs)
		if err == nil || !errors.Is(err, errRaced) || try == 5 {
			return result, err
		}
	}
}

// errRaced means that an object was changed between its reading and its writing, by another replica.
var errRaced = fmt.Errorf("%w", store.ErrConflict)

func (a *API) applyOnce(ctx context.Context, req *ApplyRequest, docs []decode.Document) (any, error) {
	result := ApplyResult{Objects: []Applied{}}
	var changes []store.Change
	var errs []decode.Error
	if !req.Delete && !req.AllowUnresolved {
		var err error
		if errs, err = a.unresolved(ctx, docs); err != nil {
			return nil, err
		}
	}
	pinned := false
	for i := range docs {
		d := &docs[i]
		change, action, old, err := a.change(ctx, d, req.Delete)
		var e decode.Error
		switch {
		case errors.As(err, &e):
			errs = append(errs, e)
			continue
		case err != nil:
			return nil, err
		}
		if change != nil {
			changes = append(changes, *change)
		}
		pinned = pinned || v1alpha1.Meta(d.Object).ResourceVersion != ""
		result.Objects = append(result.Objects, Applied{Kind: d.Kind.Name, Namespace: d.Object.GetNamespace(), Name: d.Object.GetName(), Action: action})
		if req.Diff {
			tell(&result.Objects[len(result.Objects)-1], old, after(change, old))
		}
	}
	if len(errs) > 0 {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "nothing was stored", Errors: errs[:min(len(errs), decode.MaxErrors)]}
	}
	if err := a.preview(ctx, req, docs, &result); err != nil {
		return nil, err
	}
	if req.DryRun {
		changes = nil
	}
	rev, err := a.cfg.Store.Apply(ctx, changes)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		if !pinned {
			err = errRaced
		}
	}
	result.Revision = rev
	return result, err
}

// after answers what will be stored: what is, where nothing is changed.
func after(c *store.Change, old []byte) []byte {
	if c == nil {
		return old
	}
	return c.Value
}

// change answers what to do about one document, nil when it is stored already, and what is stored.
func (a *API) change(ctx context.Context, d *decode.Document, remove bool) (*store.Change, string, []byte, error) {
	key := store.Key{Kind: d.Kind.Name, Namespace: d.Object.GetNamespace(), Name: d.Object.GetName()}
	old, err := a.cfg.Store.Get(ctx, key)
	exists := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, "", nil, err
	}
	if remove {
		if !exists {
			return nil, "absent", nil, nil
		}
		return &store.Change{Key: key, Delete: true, If: store.At(old.Revision)}, "deleted", old.Value, nil
	}
	if v := v1alpha1.Meta(d.Object).ResourceVersion; v != "" && (!exists || v != strconv.FormatInt(old.Revision, 10)) {
		return nil, "", nil, d.Errorf("metadata.resourceVersion", "is %s, but the object was changed or deleted since: get it again, or remove the field", v)
	}
	if m, ok := d.Object.(*v1alpha1.MeshConfig); ok && m.Spec.TrustDomain != a.cfg.Info.TrustDomain && !slices.Contains(m.Spec.TrustDomainAliases, a.cfg.Info.TrustDomain) {
		return nil, "", nil, d.Errorf("spec.trustDomain", "is %s, but the mesh CA is of %s, which is changed only while it is an alias: write spec.trustDomainAliases: [%s] as well, and start the control plane again when every proxy has acknowledged that; or leave the trust domain as it is",
			m.Spec.TrustDomain, a.cfg.Info.TrustDomain, a.cfg.Info.TrustDomain)
	} else if ok {
		if i, err := federate.Check(m.Spec.Federation); err != nil {
			return nil, "", nil, d.Errorf(fmt.Sprintf("spec.federation[%d].bundle", i), "%v", err)
		}
	}
	value, same, err := a.stored(d, old.Value)
	switch {
	case err != nil:
		return nil, "", nil, err
	case !exists:
		return &store.Change{Key: key, Value: value, If: store.Absent}, "created", nil, nil
	case same:
		return nil, "unchanged", old.Value, nil
	}
	return &store.Change{Key: key, Value: value, If: store.At(old.Revision)}, "configured", old.Value, nil
}

// stored answers the value to keep for a document: without status, and with the metadata that is ours. same
// says that it is what is there.
func (a *API) stored(d *decode.Document, old []byte) (value []byte, same bool, err error) {
	o := d.Kind.New()
	text, err := json.Marshal(d.Object)
	if err == nil {
		err = json.Unmarshal(text, o)
	}
	if err != nil {
		return nil, false, err
	}
	m, given := v1alpha1.Meta(o), v1alpha1.Meta(d.Object)
	*m = v1alpha1.ObjectMeta{Name: given.Name, Namespace: given.Namespace, Labels: given.Labels, Annotations: given.Annotations}
	if old == nil {
		m.UID = v1alpha1.UID(newUID())
		m.Generation = 1
		m.CreationTimestamp = v1alpha1.Time{Time: a.cfg.Now().UTC()}
		value, err = encode(o)
		return value, false, err
	}
	before := d.Kind.New()
	if err := json.Unmarshal(old, before); err != nil {
		return nil, false, fmt.Errorf("%s: what is stored cannot be read: %w", d.Name(), err)
	}
	was := v1alpha1.Meta(before)
	m.UID, m.Generation, m.CreationTimestamp = was.UID, was.Generation, was.CreationTimestamp
	if value, err = encode(o); err != nil || bytes.Equal(value, old) {
		return value, err == nil, err
	}
	m.Generation++
	value, err = encode(o)
	return value, false, err
}

// encode writes an object without its status, with sorted keys.
func encode(o v1alpha1.Object) ([]byte, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	delete(m, "status")
	return json.Marshal(m)
}

func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562 section 5.4
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// decodeAll reads all files; an object that two of them have is refused.
func decodeAll(files []File) ([]decode.Document, error) {
	var docs []decode.Document
	var errs []decode.Error
	for _, f := range files {
		d, e := decode.Read(f.Name, []byte(f.Text))
		docs, errs = append(docs, d...), append(errs, e...)
	}
	where := map[store.Key]*decode.Document{}
	for i := range docs {
		d := &docs[i]
		key := store.Key{Kind: d.Kind.Name, Namespace: d.Object.GetNamespace(), Name: d.Object.GetName()}
		if first := where[key]; first != nil {
			errs = append(errs, d.Errorf("", "is in %s too: remove one", first.File))
		}
		for _, n := range compile.Expressions(d.Object) {
			errs = append(errs, d.Errorf(n.Path, "%s", n.Message))
		}
		where[key] = d
	}
	switch {
	case len(errs) > 0:
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "nothing was stored", Errors: errs[:min(len(errs), decode.MaxErrors)]}
	case len(docs) == 0:
		return nil, bad("there is no object in the files")
	case len(docs) > store.MaxChanges:
		return nil, bad("there are %d objects in the files: at most %d are stored together, apply fewer files at once", len(docs), store.MaxChanges)
	}
	return docs, nil
}

// read decodes the body of a request, strictly.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return err
		}
		return bad("the body of the request cannot be read: %v", err)
	}
	return nil
}
