// Command shop runs one service of the example shop: shop SERVICE [VERSION].
package main

import (
	"log/slog"
	"os"

	"github.com/tulle-mesh/tulle/examples/shop"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	os.Exit(shop.Main(os.Args[1:], shop.Config{Logger: log, Out: os.Stdout}))
}
