package gateway

import (
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/tulle-mesh/tulle/model"
)

// dump answers a value of the model as it is shown to people: what is not set is left out, and so is key material.
func dump(v any) any { return show(reflect.ValueOf(v)) }

const redacted = "[redacted]"

func show(v reflect.Value) any {
	if !v.IsValid() {
		return nil
	}
	switch x := v.Interface().(type) {
	case model.Material:
		if x.File != "" {
			return "file " + x.File
		}
		return redacted
	case model.Header:
		return map[string]string{"name": x.Name, "value": shownValue(x.Name, x.Value)}
	case fmt.Stringer: // names, addresses, durations
		if v.Kind() != reflect.Pointer {
			return x.String()
		}
	case []byte:
		if utf8.Valid(x) {
			return string(x)
		}
		return fmt.Sprintf("%x", x)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return show(v.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				out[v.Type().Field(i).Name] = show(f)
			}
		}
		return out
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = show(v.Index(i))
		}
		return out
	}
	return v.Interface()
}

// shownValue leaves out what a header would let its reader do.
func shownValue(name, value string) string {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key":
		return redacted
	}
	return value
}
