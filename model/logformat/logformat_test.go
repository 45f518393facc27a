package logformat_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/logformat"
)

func TestParse(t *testing.T) {
	ops, err := logformat.Parse(`a %REQ(X-Id?:PATH):12%%% %RESPONSE_CODE% %START_TIME(%Y/%m %s%3f %%)%` + "\n")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []logformat.Kind
	for _, o := range ops {
		kinds = append(kinds, o.Kind)
	}
	want := []logformat.Kind{logformat.Text, logformat.Req, logformat.Text, logformat.ResponseCode, logformat.Text, logformat.StartTime, logformat.Text}
	if len(kinds) != len(want) {
		t.Fatalf("%+v", ops)
	}
	for i := range want {
		if kinds[i] != want[i] {
			t.Errorf("part %d is %d", i, kinds[i])
		}
	}
	if o := ops[1]; o.Name != "x-id" || o.Other != ":path" || o.Max != 12 {
		t.Errorf("%+v", o)
	}
	if ops[2].Text != "% " || !ops[3].Number || len(ops[5].Time) != 8 {
		t.Errorf("%+v", ops)
	}
	if _, err := logformat.Parse(logformat.Default); err != nil {
		t.Error(err)
	}
}

func TestUnknown(t *testing.T) {
	for format, want := range map[string]string{
		"ok %DYNAMIC_METADATA(a:b)%": "byte 3: %DYNAMIC_METADATA%",
		"%REQ%":                      "needs a field's name",
		"100%":                       "write %%",
		"%REQ(a":                     "not closed",
		"%START_TIME(%Q)%":           "%Q",
		"%PROTOCOL(x)%":              "no argument",
		"%REQ(a):0%":                 "length",
		"%GRPC_STATUS(x)%":           "CAMEL_STRING",
	} {
		if _, err := logformat.Parse(format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", format, err, want)
		}
	}
	nested := model.AccessLog{JSON: []model.LogField{{Name: "a", Members: []model.LogField{{Name: "b", Format: "%NO%"}}}}}
	if err := logformat.Check(&nested); err == nil || !strings.Contains(err.Error(), `"a": member "b"`) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(logformat.Default)
	f.Add("%START_TIME(%s.%3f)% %REQ(a?b):3% %%")
	f.Fuzz(func(t *testing.T, s string) {
		ops, err := logformat.Parse(s)
		if err != nil || strings.Contains(s, "%") {
			return
		}
		all := ""
		for _, o := range ops {
			all += o.Text
		}
		if all != s {
			t.Errorf("%q became %q", s, all)
		}
	})
}
