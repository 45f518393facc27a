// Command govet is the vet suite of golang.org/x/tools at the version that go.mod pins, so that the checks do not
// change with the toolchain: go vet -vettool=$(go tool -n govet) ./...
package main

import (
	"golang.org/x/tools/go/analysis/suite/vet"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() { unitchecker.Main(vet.Suite...) }
