package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/proxy/mtls"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this binary, and whether FIPS 140-3 mode is on", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mode := "off"
			if mtls.FIPS() {
				mode = "on"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tulle %s (%s, %s/%s, FIPS 140-3 mode %s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, mode)
			return err
		},
	}
}

// version answers the module's version, else the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}
