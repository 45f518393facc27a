package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestBinary: the document of the real binary names what it is made of, with hashes, and is the same each time.
func TestBinary(t *testing.T) {
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := run("../../cmd/tulle", w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("another document the second time")
	}
	var doc bom
	if err := json.Unmarshal(a.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, c := range doc.Components {
		if c.Name == "std" || c.Name == "google.golang.org/grpc" || c.Name == "go.etcd.io/etcd/server/v3" {
			found++
		}
		if c.Name != "std" && (len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 || !strings.HasPrefix(c.Version, "v")) {
			t.Errorf("%+v", c)
		}
		if c.Name == "honnef.co/go/tools" {
			t.Error("a tool is not part of the binary")
		}
	}
	if found != 3 || doc.Format != "CycloneDX" || doc.Metadata.Component.Name != "github.com/tulle-mesh/tulle" || len(doc.Dependencies[0].DependsOn) != len(doc.Components) {
		t.Errorf("%d of 3 found in %.300s", found, a.String())
	}
}

func TestNoHash(t *testing.T) {
	const list = `{"Module":{"Path":"a","Main":true}} {"Standard":true} {"Module":{"Path":"b","Version":"v1.0.0"}}`
	if _, err := made([]byte(list), nil, "go1.26"); err == nil || !strings.Contains(err.Error(), "no hash") {
		t.Error(err)
	}
	if _, err := made([]byte(`{"Standard":true}`), nil, "go1.26"); err == nil {
		t.Error("nothing of ours is in it")
	}
}
