package decisions_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

// TestKilled: a control plane that is killed at any moment, and started again on its folder, knows everything that it was told, once.
func TestKilled(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := filepath.Join(t.TempDir(), "decisions")
		open := func(now time.Time) *decisions.Keeper {
			k := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
			if err := k.Load(now); err != nil {
				t.Fatal(err)
			}
			return k
		}
		want, now, k := &decisions.Memory{}, begin, open(begin)
		for range 60 {
			now = now.Add(time.Duration(rnd.IntN(20)) * time.Second)
			switch n := rnd.IntN(10); {
			case n < 6:
				name := model.ServiceName{Namespace: "default", Name: fmt.Sprint("s", rnd.IntN(3))}
				r := report(seen(fmt.Sprint("/", rnd.IntN(5)), 1+rnd.Uint64N(3), now))
				r.Unproven = []decision.Unproven{{Port: 80, Address: "192.0.2.1", Count: 1, First: now.UnixMilli(), Last: now.UnixMilli()}}
				k.Report(name, v1, r, now)
				want.Report(name, v1, report(r.Of...), now)
				want.Report(name, v1, decision.Report{Unproven: r.Unproven}, now)
			case n < 9:
				if err := k.Save(now, n == 8); err != nil {
					t.Fatal(err)
				}
			default:
				k = open(now) // the one before is left as it is
			}
		}
		if got, want := open(now).Memory.List(all, time.Time{}), want.List(all, time.Time{}); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d:\n%+v, want\n%+v", seed, got, want)
		}
	}
}

// TestTorn: what was being written when the process was killed is left out, and a journal that cannot be read is told.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	k := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := k.Load(begin); err != nil {
		t.Fatal(err)
	}
	k.Report(reviews, v1, report(seen("/a", 1, begin)), begin)
	k.Report(reviews, v1, report(seen("/b", 1, begin)), begin)
	paths, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut, want := range map[int]int{len(text): 2, len(text) - 1: 1, len(text)/2 + 1: 1, 3: 0} {
		if err := os.WriteFile(paths[0], text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
		if err := again.Load(begin); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		n := 0
		for _, s := range again.Memory.List(all, time.Time{}) {
			n += len(s.Entries)
		}
		if n != want {
			t.Errorf("cut at %d of %d: %d entries, want %d", cut, len(text), n, want)
		}
	}
	if err := os.WriteFile(paths[0], []byte("{\n"+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	again := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := again.Load(begin); err == nil {
		t.Error("a line that is no line of a journal is not told")
	}
	if err := again.Save(begin, true); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.journal")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// FuzzJournal: whatever is in a journal, what is taken of it is what is known after the next start.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"name":{"Namespace":"default","Name":"reviews"},"at":1800000000000,"report":{"Of":[{"port":80,"method":"GET","path":"/","verdict":"allowed","count":1,"first":1799999999000,"last":1800000000000}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "7.journal"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		k := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
		_ = k.Load(begin) // an error is an answer
		if err := k.Save(begin, true); err != nil {
			return // a name that is no name of a file
		}
		some := func(list []decisions.Service) []decisions.Service { // what is known of nobody is forgotten with the next start
			return slices.DeleteFunc(list, func(s decisions.Service) bool { return len(s.Entries)+len(s.Unproven) == 0 })
		}
		want := some(k.Memory.List(all, time.Time{}))
		again := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
		if err := again.Load(begin); err != nil {
			t.Fatal(err)
		}
		if got := some(again.Memory.List(all, time.Time{})); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
