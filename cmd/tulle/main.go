// Command tulle is the whole service mesh in one binary; see package cli.
package main

import (
	"os"

	"github.com/tulle-mesh/tulle/cli"
)

func main() { os.Exit(cli.Main()) }
