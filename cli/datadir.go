package cli

import (
	"os"
	"path/filepath"
	"strconv"
)

// defaultDataDir is where a control plane keeps its state unless --data-dir says otherwise: the user's state
// folder, which names the control plane that every command talks to.
func defaultDataDir() string {
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tulle")
	}
	if home, err := os.UserHomeDir(); err == nil && home != "" {
		return filepath.Join(home, ".local", "state", "tulle")
	}
	return filepath.Join(os.TempDir(), "tulle-"+strconv.Itoa(os.Getuid()))
}
