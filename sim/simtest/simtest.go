// Package simtest is how tests walk through the seeds of the simulator, and how one that failed is run again: a test
// binary that imports it has the flag -seed, and a failure prints the command that repeats it. Start reading at Each.
package simtest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// seed is the one to run; negative: all.
var seed = flag.Int64("seed", -1, "run this seed of the simulator only")

// Each runs f for every seed below n, or with -seed=N for N alone, each as a subtest.
func Each(t *testing.T, n uint64, f func(t *testing.T, seed uint64)) {
	t.Helper()
	first, end := uint64(0), n
	if *seed >= 0 {
		first, end = uint64(*seed), uint64(*seed)+1
	}
	for s := first; s < end; s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Log("again: " + Command(folder(), t.Name(), s))
				}
			})
			f(t, s)
		})
	}
}

// Command answers what runs one seed of a test again. test is its name, subtests behind slashes; that of the seed
// itself is of no use to -run.
func Command(folder, test string, seed uint64) string {
	parts := strings.Split(test, "/")
	run := ""
	for _, p := range parts[:len(parts)-1] {
		run += "/^" + regexp.QuoteMeta(p) + "$"
	}
	return fmt.Sprintf("go test ./%s -run '%s' -seed=%d", folder, strings.TrimPrefix(run, "/"), seed)
}

// folder answers the package under test, from the module's root; tests run in it.
func folder() string {
	here, err := os.Getwd()
	if err != nil {
		return "..."
	}
	for up := here; up != filepath.Dir(up); up = filepath.Dir(up) {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			if rel, err := filepath.Rel(up, here); err == nil {
				return filepath.ToSlash(rel)
			}
		}
	}
	return "..."
}
