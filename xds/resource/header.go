package resource

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/tulle-mesh/tulle/model"
)

type headerOption = corev3.HeaderValueOption

// appendOptions writes sets, then adds. Envoy reads values as formats, so a percent sign is doubled.
func appendOptions(dst []*headerOption, c *model.HeaderChange) []*headerOption {
	for _, h := range c.Set {
		dst = append(dst, option(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, h := range c.Add {
		dst = append(dst, option(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return dst
}

func option(h model.Header, a corev3.HeaderValueOption_HeaderAppendAction) *headerOption {
	return &headerOption{
		Header:         &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
		AppendAction:   a,
		KeepEmptyValue: h.Value == "",
	}
}

// decodeFilters reads header fields as at most two filters, that of the request first.
func decodeFilters(path string, h headerFields) ([]model.Filter, error) {
	var out []model.Filter
	for _, side := range []struct {
		kind   model.FilterKind
		name   string
		add    []*headerOption
		remove []string
	}{
		{model.FilterRequestHeaders, "request", h.requestAdd, h.requestRemove},
		{model.FilterResponseHeaders, "response", h.responseAdd, h.responseRemove},
	} {
		if len(side.add) == 0 && len(side.remove) == 0 {
			continue
		}
		c, err := decodeChange(join(path, side.name+"_headers_to_add"), side.add)
		if err != nil {
			return nil, err
		}
		c.Remove = side.remove
		out = append(out, model.Filter{Kind: side.kind, Headers: c})
	}
	return out, nil
}

func decodeChange(path string, opts []*headerOption) (c model.HeaderChange, err error) {
	for i, o := range opts {
		path := fmt.Sprintf("%s[%d]", path, i)
		if err := only(path, o, "header", "append_action", "keep_empty_value"); err != nil {
			return c, err
		}
		if err := only(path+".header", o.GetHeader(), "key", "value"); err != nil {
			return c, err
		}
		h := model.Header{Name: o.GetHeader().GetKey()}
		if h.Value, err = plainValue(path+".header.value", o.GetHeader().GetValue()); err != nil {
			return c, err
		}
		if h.Name == "" || (h.Value == "") != o.GetKeepEmptyValue() {
			return c, refuse(path, "has no name, or an empty value that is not kept")
		}
		switch {
		case o.GetAppendAction() == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			c.Add = append(c.Add, h)
		case o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			return c, refuse(path+".append_action", "%s is not run by Tulle", o.GetAppendAction())
		case len(c.Add) > 0:
			return c, refuse(path, "overwrites after an append; Tulle sets first, then adds")
		default:
			c.Set = append(c.Set, h)
		}
	}
	return c, nil
}

// plainValue undoes the doubling of percent signs and refuses Envoy's command operators.
func plainValue(path, v string) (string, error) {
	if strings.Contains(strings.ReplaceAll(v, "%%", ""), "%") {
		return "", refuse(path, "%q holds a command operator, which Tulle does not run", clip(v))
	}
	return strings.ReplaceAll(v, "%%", "%"), nil
}
