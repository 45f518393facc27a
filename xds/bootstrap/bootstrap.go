// Package bootstrap reads an Envoy bootstrap file, YAML or JSON, into model.Bootstrap. Every error is one line that says
// file, line and field; what Tulle does not run is refused, never ignored (docs/reference/xds.md). It reads that one file
// and nothing that the file names. Start reading at Decode.
package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/envoy"
)

// maxSize bounds a file, in bytes.
const maxSize = 16 << 20

// Error is what is wrong with a file.
type Error struct {
	File string
	Line int // from 1; 0: the file as a whole
	Why  string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Why
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Why)
}

// Read reads the file at path.
func Read(path string) (*model.Bootstrap, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, &Error{File: path, Why: fmt.Sprintf("%d bytes; a bootstrap has at most %d", info.Size(), maxSize)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Decode(path, text)
}

// Line answers on which line of the file the field at path stands, or what it is in; 0: the file cannot be read any more.
func Line(file, path string) int {
	text, err := os.ReadFile(file)
	var root yaml.Node
	if err != nil || yaml.Unmarshal(text, &root) != nil || len(root.Content) == 0 {
		return 0
	}
	return lineOf(root.Content[0], path)
}

// Decode reads text; name is what errors call the file. YAML becomes JSON with every value on its own line of the file,
// so that what the decoder of protobuf says about a line is true of the file.
func Decode(name string, text []byte) (*model.Bootstrap, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, syntax(name, err)
	}
	if err := alone(name, text); err != nil {
		return nil, err
	}
	if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return nil, &Error{File: name, Line: max(root.Line, 1), Why: "is no Envoy bootstrap: an object with static_resources or dynamic_resources"}
	}
	w := writer{name: name}
	if err := w.value(root.Content[0], 0); err != nil {
		return nil, err
	}
	var m bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(w.out.Bytes(), &m); err != nil {
		return nil, located(name, err)
	}
	b, err := envoy.Bootstrap(&m)
	var refused *envoy.RefusedError
	if errors.As(err, &refused) {
		return nil, &Error{File: name, Line: lineOf(root.Content[0], refused.Field), Why: refused.Error()}
	}
	return b, err
}

// alone refuses a second document: the parser reads the first one only, and says nothing.
func alone(name string, text []byte) error {
	for i, all := 0, yaml.NewDecoder(bytes.NewReader(text)); ; i++ {
		var n yaml.Node
		switch err := all.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return syntax(name, err)
		case i > 0 && len(n.Content) > 0 && n.Content[0].Tag != "!!null":
			return &Error{File: name, Line: n.Content[0].Line, Why: "begins a second document; a bootstrap is one"}
		}
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?line (\d+): (.*)`)

// syntax translates what the YAML parser says.
func syntax(name string, err error) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits
		return &Error{File: name, Line: line, Why: "is not YAML: " + m[2]}
	}
	return &Error{File: name, Why: "is not YAML: " + strings.TrimPrefix(text, "yaml: ")}
}

var protoLine = regexp.MustCompile(`\(line (\d+):\d+\):? ?`)

// located translates what the decoder of protobuf says; its lines are those of the file.
func located(name string, err error) error {
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "proto:")), " ") // it varies its spaces
	line := 0
	if m := protoLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		text = strings.Replace(text, m[0], "", 1)
	}
	if strings.Contains(text, "unexpected token") {
		text += "; a value of another kind belongs here (a duration is a text: 1.5s)"
	}
	if strings.Contains(text, "unable to resolve") {
		text += "; Tulle runs no such extension (docs/reference/xds.md)"
	}
	return &Error{File: name, Line: line, Why: text}
}
