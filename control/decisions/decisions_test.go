package decisions_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

var (
	begin   = time.Unix(1_800_000_000, 0)
	reviews = model.ServiceName{Namespace: "default", Name: "reviews"}
	v1      = []model.Label{{Name: "app", Value: "reviews"}, {Name: "version", Value: "v1"}}
)

func all(model.ServiceName) bool { return true }

func seen(path string, n uint64, at time.Time) decision.Seen {
	return decision.Seen{Key: decision.Key{Principal: "spiffe://tulle.local/ns/default/sa/cart", Port: 80, Method: "GET", Path: path, Verdict: decision.Allowed},
		Count: n, First: at.UnixMilli(), Last: at.UnixMilli(), Request: "r" + path}
}

func report(list ...decision.Seen) decision.Report { return decision.Report{Of: list} }

// TestKept: what several proxies tell is put together, and known to who is started on the same folder.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "decisions")
	k := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := k.Load(begin); err != nil {
		t.Fatal(err)
	}
	k.Memory.Report(reviews, v1, report(seen("/a", 2, begin), seen("/b", 1, begin)), begin)
	later := begin.Add(time.Hour)
	k.Memory.Report(reviews, v1, report(seen("/a", 3, later)), later)
	k.Memory.Report(reviews, nil, decision.Report{Of: []decision.Seen{seen("/a", 1, later.Add(time.Hour))}, Others: 7}, later)
	if err := k.Save(later, false); err != nil {
		t.Fatal(err)
	}
	want := k.Memory.List(all, time.Time{})
	if len(want) != 1 || len(want[0].Entries) != 3 || want[0].Others != 7 || !want[0].Entries[0].At().Equal(later) {
		t.Fatalf("%+v", want)
	}
	if e := want[0].Entries[1]; e.Count != 5 || e.Labels != "app=reviews,version=v1" || e.First != begin.UnixMilli() || e.Last != later.UnixMilli() {
		t.Errorf("%+v", e)
	}
	if got := k.Memory.List(all, later); len(got[0].Entries) != 2 {
		t.Errorf("since an hour: %+v", got)
	}
	for name, junk := range map[string]string{"x.y.json": "{", "a.json.new": "half", "b.c.json": `{"name":{"Namespace":"..","Name":"d"}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := again.Load(later); err == nil || !strings.Contains(err.Error(), "x.y.json") || !strings.Contains(err.Error(), "b.c.json") {
		t.Error(err)
	}
	if got := again.Memory.List(all, time.Time{}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nafter a restart:\n%+v", want, got)
	}
	if err := again.Save(later.Add(decisions.Expires+time.Hour), true); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 || len(again.Memory.List(all, time.Time{})) != 0 {
		t.Errorf("%d files after all has expired", len(files))
	}
}

// TestBounded: whatever paths there are, the number of entries keeps its bound, no request goes uncounted, and every path that was
// folded fits its template.
func TestBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m := &decisions.Memory{}
	n := uint64(0)
	for range 3 * decisions.MaxEntries {
		path := fmt.Sprintf("/users/%d", rnd.IntN(1e6))
		switch rnd.IntN(3) {
		case 0:
			path = fmt.Sprintf("/shop/item-%x/w%dx", rnd.IntN(1e6), rnd.IntN(3))
		case 1:
			path = fmt.Sprintf("/x%d/y%d/z%d", rnd.IntN(9), rnd.IntN(9), rnd.IntN(9))
		}
		m.Report(reviews, v1, report(seen(path, 1, begin)), begin)
		n++
	}
	list := m.List(all, time.Time{})[0]
	for _, e := range list.Entries {
		n -= e.Count
		if e.Folded && !decisions.Fits(strings.Split(e.Path, "/"), strings.Split(e.Sample, "/")) {
			t.Errorf("%q is no %q", e.Sample, e.Path)
		}
	}
	if len(list.Entries) > decisions.MaxEntries || len(list.Entries) < 500 || n != list.Others || list.Others != 0 {
		t.Errorf("%d entries, %d requests are missing, %d others", len(list.Entries), n, list.Others)
	}
	for i := range decisions.MaxServices + 5 {
		m.Report(model.ServiceName{Namespace: "n", Name: fmt.Sprint(i)}, nil, report(seen("/", 1, begin)), begin.Add(time.Duration(i)*time.Second))
	}
	if n := len(m.List(all, time.Time{})); n != decisions.MaxServices {
		t.Errorf("%d services", n)
	}
	for i := range 2 * decisions.MaxLabels {
		m.Report(reviews, []model.Label{{Name: "pod", Value: fmt.Sprint(i)}}, report(seen("/", 1, begin)), begin.Add(time.Hour))
	}
	mixed := false
	for _, e := range m.List(func(n model.ServiceName) bool { return n == reviews }, time.Time{})[0].Entries {
		mixed = mixed || e.Labels == decisions.Mixed && e.Count == decisions.MaxLabels
	}
	if !mixed {
		t.Error("labels without a bound")
	}
}

// TestUnproven: callers in plaintext are put together, kept, bounded and forgotten.
func TestUnproven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "decisions")
	k := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := k.Load(begin); err != nil {
		t.Fatal(err)
	}
	came := func(from string, n uint64, at time.Time) decision.Report {
		return decision.Report{Unproven: []decision.Unproven{{Port: 80, Address: from, Count: n, First: at.UnixMilli(), Last: at.UnixMilli(), Sample: "GET /" + from}}}
	}
	later := begin.Add(time.Hour)
	k.Memory.Report(reviews, v1, came("192.0.2.1", 2, begin), begin)
	k.Memory.Report(reviews, nil, came("192.0.2.1", 3, later), later)
	k.Memory.Report(reviews, nil, came("192.0.2.2", 1, begin), later)
	if err := k.Save(later, true); err != nil {
		t.Fatal(err)
	}
	want := k.Memory.List(all, time.Time{})
	if len(want) != 1 || len(want[0].Unproven) != 2 || want[0].Unproven[0].Count != 5 || want[0].Unproven[0].First != begin.UnixMilli() || want[0].Unproven[0].Last != later.UnixMilli() {
		t.Fatalf("%+v", want)
	}
	if got := k.Memory.List(all, later); len(got[0].Unproven) != 1 {
		t.Errorf("since an hour: %+v", got)
	}
	again := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: dir}
	if err := again.Load(later); err != nil {
		t.Fatal(err)
	}
	if got := again.Memory.List(all, time.Time{}); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: %+v, want %+v", got, want)
	}
	for i := range 2 * decisions.MaxUnproven {
		again.Memory.Report(reviews, nil, came(fmt.Sprintf("10.0.%d.%d", i>>8, i&255), 1, later), later)
	}
	if got := again.Memory.List(all, time.Time{})[0]; len(got.Unproven) != decisions.MaxUnproven || got.UnprovenOthers != decisions.MaxUnproven+2 {
		t.Errorf("%d callers, %d others", len(got.Unproven), got.UnprovenOthers)
	}
	if err := again.Save(later.Add(decisions.Expires+time.Minute), true); err != nil {
		t.Fatal(err)
	}
	if got := again.Memory.List(all, time.Time{}); len(got) != 0 {
		t.Errorf("after all that time: %+v", got)
	}
}

// TestAddressesAreFolded: where there are too many entries, the addresses of who came from many are what is forgotten first, and what is
// known of others stays.
func TestAddressesAreFolded(t *testing.T) {
	m := &decisions.Memory{}
	told := func(principal, path string, i int) {
		s := seen(path, 1, begin)
		s.Principal = principal
		s.Fields = string(decision.AppendCaller([]byte("h:x=y"), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), principal == ""))
		m.Report(reviews, v1, report(s), begin)
	}
	for i := range 3 * decisions.MaxEntries {
		told("", fmt.Sprintf("/p%d", i%7), i)
		told("spiffe://tulle.local/ns/default/sa/cart", fmt.Sprintf("/p%d", i%7), i%3)
	}
	list := m.List(all, time.Time{})[0]
	n, crowd, few := uint64(0), 0, 0
	for _, e := range list.Entries {
		n += e.Count
		if e.Folded || !strings.HasPrefix(e.Fields, "h:x=y") {
			t.Errorf("%+v", e.Key)
		}
		switch known := e.Known().Caller.IsValid(); {
		case e.Principal == "" && !known:
			crowd++
		case e.Principal != "" && known:
			few++
		case e.Principal != "":
			t.Errorf("forgotten: %+v", e.Key)
		}
	}
	if n != 6*decisions.MaxEntries || list.Others != 0 || crowd != 7 || few != 21 || len(list.Entries) > decisions.MaxEntries {
		t.Errorf("%d requests, %d others, %d entries; %d without, %d with their address", n, list.Others, len(list.Entries), crowd, few)
	}
}
