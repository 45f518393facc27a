package server

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

func TestRecoveredIsBounded(t *testing.T) {
	l := recovery.Learned{}
	l.Service.Add(time.Unix(1_800_000_000, 0), time.Second)
	wire := l.Append(nil)
	one := func(change func(*tullepb.Recovery)) *tullepb.Recovered {
		r := &tullepb.Recovery{Cluster: "a.b:80", Learned: wire, Last: []*tullepb.Outage{{Ended: 1_800_000_000_000, Lasted: 1000}}}
		change(r)
		return &tullepb.Recovered{Of: []*tullepb.Recovery{r}}
	}
	got, err := readRecovered(one(func(*tullepb.Recovery) {}))
	if err != nil || len(got) != 1 || got[0].Learned != l || got[0].Last[0].Lasted != time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = readRecovered(one(func(r *tullepb.Recovery) { r.Last[0].Lasted = 1 << 60 }))
	if err != nil || got[0].Last[0].Lasted != maxLasted {
		t.Errorf("%+v, %v", got, err)
	}
	newer := append([]byte{2, 9, 9}, wire[1+wire[0]:]...)
	if got, err = readRecovered(one(func(r *tullepb.Recovery) { r.Learned = newer })); err != nil || len(got) != 0 {
		t.Errorf("of another version: %+v, %v", got, err)
	}
	many := &tullepb.Recovered{}
	for range maxRecovered + 1 {
		many.Of = append(many.Of, one(func(*tullepb.Recovery) {}).Of[0])
	}
	for why, m := range map[string]*tullepb.Recovered{
		"at most 64": many, "recovery of": one(func(r *tullepb.Recovery) { r.Cluster = "nonsense" }),
		"cut off": one(func(r *tullepb.Recovery) { r.Learned = wire[:3] }),
		"at most 4": one(func(r *tullepb.Recovery) {
			for range maxOutages {
				r.Last = append(r.Last, r.Last[0])
			}
		}),
	} {
		if _, err := readRecovered(m); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// FuzzRecovered: whatever a proxy says, what is taken is within its bounds.
func FuzzRecovered(f *testing.F) {
	l := recovery.Learned{}
	l.Endpoint.Add(time.Unix(1_800_000_000, 0), time.Minute)
	b, err := proto.Marshal(&tullepb.Recovered{Of: []*tullepb.Recovery{{Cluster: "a.b:80", Learned: l.Append(nil), Last: []*tullepb.Outage{{Ended: 1, Lasted: 2}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &tullepb.Recovered{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		list, err := readRecovered(m)
		if err == nil && len(list) > maxRecovered {
			t.Fatalf("%d destinations", len(list))
		}
		for _, r := range list {
			if len(r.Last) > maxOutages {
				t.Fatalf("%d outages", len(r.Last))
			}
			for _, o := range r.Last {
				if o.Lasted < 0 || o.Lasted > maxLasted {
					t.Fatalf("%v", o)
				}
			}
		}
	})
}
