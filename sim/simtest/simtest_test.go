package simtest_test

import (
	"flag"
	"testing"

	"github.com/tulle-mesh/tulle/sim/simtest"
)

func TestEach(t *testing.T) {
	var ran []uint64
	note := func(_ *testing.T, seed uint64) { ran = append(ran, seed) }
	t.Run("all", func(t *testing.T) { simtest.Each(t, 3, note) })
	was := flag.Lookup("seed").Value.String()
	if err := flag.Set("seed", "7"); err != nil {
		t.Fatal(err)
	}
	t.Run("one", func(t *testing.T) { simtest.Each(t, 3, note) })
	if err := flag.Set("seed", was); err != nil {
		t.Fatal(err)
	}
	if was == "-1" && (len(ran) != 4 || ran[2] != 2 || ran[3] != 7) {
		t.Errorf("seeds %v", ran)
	}
}

func TestCommand(t *testing.T) {
	want := "go test ./proxy/listener -run '^TestSeeds$/^resets$' -seed=12"
	if got := simtest.Command("proxy/listener", "TestSeeds/resets/seed=12", 12); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
