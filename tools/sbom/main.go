// Command sbom writes what a binary is made of, as CycloneDX 1.6 in JSON, to standard output: go run ./tools/sbom ./cmd/tulle. It
// asks the go command which modules the packages are from and go.sum for their hashes; it needs no network where the modules are
// there already. The same sources give the same bytes: there is no time and no random number in it.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// module is what go list says of one.
type module struct {
	Path, Version string
	Main          bool
	Replace       *module
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

type bom struct {
	Schema   string `json:"$schema"`
	Format   string `json:"bomFormat"`
	Spec     string `json:"specVersion"`
	Version  int    `json:"version"`
	Metadata struct {
		Component component `json:"component"`
	} `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

func main() {
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sbom PACKAGE")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(pkg string, w io.Writer) error {
	list := exec.Command("go", "list", "-mod=readonly", "-deps", "-json=Module,Standard", pkg)
	list.Env, list.Stderr = append(os.Environ(), "GOFLAGS="), os.Stderr
	text, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	where, err := exec.Command("go", "env", "GOMOD", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	mod, version, _ := strings.Cut(strings.TrimSpace(string(where)), "\n")
	sums, err := os.ReadFile(strings.TrimSuffix(mod, ".mod") + ".sum")
	if err != nil {
		return err
	}
	b, err := made(text, sums, version)
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(b)
}

// made makes the document of what go list has said and of go.sum.
func made(list, sums []byte, goVersion string) (*bom, error) {
	hashes := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		if f := strings.Fields(line); len(f) == 3 {
			hashes[f[0]+"@"+f[1]] = f[2]
		}
	}
	b := &bom{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1}
	seen := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var p struct{ Module *module }
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return b.finish(goVersion)
		case err != nil:
			return nil, fmt.Errorf("what go list says: %w", err)
		case p.Module == nil:
			continue
		}
		m := p.Module
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Main {
			b.Metadata.Component = component{Type: "application", Ref: "pkg:golang/" + m.Path, Name: m.Path, PURL: "pkg:golang/" + m.Path}
			continue
		}
		c, err := library(m, hashes[m.Path+"@"+m.Version])
		if err != nil {
			return nil, err
		}
		if !seen[c.Ref] {
			seen[c.Ref] = true
			b.Components = append(b.Components, c)
		}
	}
}

func library(m *module, sum string) (component, error) {
	url := "pkg:golang/" + m.Path + "@" + m.Version
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:"))
	if err != nil || len(raw) != 32 {
		return component{}, fmt.Errorf("%s %s has no hash in go.sum: run 'go mod tidy'", m.Path, m.Version)
	}
	return component{Type: "library", Ref: url, Name: m.Path, Version: m.Version, PURL: url, Hashes: []hash{{"SHA-256", hex.EncodeToString(raw)}}}, nil
}

func (b *bom) finish(goVersion string) (*bom, error) {
	if b.Metadata.Component.Name == "" {
		return nil, errors.New("no package is of this module")
	}
	std := "pkg:golang/std@" + strings.TrimPrefix(goVersion, "go")
	b.Components = append(b.Components, component{Type: "library", Ref: std, Name: "std", Version: strings.TrimPrefix(goVersion, "go"), PURL: std})
	slices.SortFunc(b.Components, func(x, y component) int { return strings.Compare(x.Ref, y.Ref) })
	top := dependency{Ref: b.Metadata.Component.Ref}
	for _, c := range b.Components {
		top.DependsOn = append(top.DependsOn, c.Ref)
	}
	b.Dependencies = []dependency{top}
	return b, nil
}
