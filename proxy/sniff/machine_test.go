package sniff_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

var names = []string{"disarm", "doubt", "connect", "giveback", "open", "cancel", "arm", "armlong", "serve", "forward", "refuse"}

func describe(a sniff.Action) string {
	var s []string
	for i, n := range names {
		if a&(1<<i) != 0 {
			s = append(s, n)
		}
	}
	return strings.Join(s, "+")
}

// step does one event: "accept:BYTES", "data:BYTES" (all so far), "eof", "ready", "failed", "spoke", "expired".
func step(m *sniff.Machine, event string) sniff.Action {
	name, bytes, _ := strings.Cut(event, ":")
	switch name {
	case "accept":
		return m.Accepted([]byte(bytes))
	case "data":
		return m.Data([]byte(bytes))
	case "eof":
		return m.EOF()
	case "ready":
		return m.Ready()
	case "failed":
		return m.Failed()
	case "spoke":
		return m.Spoke()
	case "expired":
		return m.Expired()
	}
	panic(event)
}

// TestMachine walks the diagram of docs/design/sniff.md: events and what each of them answers.
func TestMachine(t *testing.T) {
	for _, c := range []struct {
		name  string
		known model.Protocol
		probe bool
		steps string // "event=actions", separated by blanks; "_" stands for a blank inside bytes
		end   sniff.State
	}{
		{"declared http", model.ProtocolHTTP, false, "accept:= data:GET=serve", sniff.HTTP},
		{"declared http, at once", model.ProtocolHTTP, false, "accept:GET=serve data:x=", sniff.HTTP},
		{"declared http, something else", model.ProtocolHTTP, false, "accept:= data:\x00=serve", sniff.HTTP},
		{"declared http, two versions possible", model.ProtocolHTTP, false, "accept:P= data:PO=serve", sniff.HTTP},
		{"declared http, ended", model.ProtocolGRPC, false, "accept:= eof=serve", sniff.HTTP},
		{"declared tcp", model.ProtocolTCP, false, "accept:=connect+forward ready= data:GET= eof=", sniff.Relay},
		{"declared tcp, nobody there", model.ProtocolTCP, false, "accept:=connect+forward failed=refuse data:x=", sniff.Ended},
		{"server first", model.LearnedServerFirst, false, "accept:=connect+forward ready= spoke=", sniff.Relay},
		{"client first, contradicted", model.LearnedClientFirst, false, "accept:GET_/_HTTP/1.1=doubt+connect+forward", sniff.Relay},
		{"unknown, HTTP at once", model.ProtocolUnknown, false, "accept:GET_/_HTTP/1.1=serve", sniff.HTTP},
		{"unknown, opaque at once", model.ProtocolUnknown, false, "accept:\x00=connect+forward ready=", sniff.Relay},
		{"unknown, TLS", model.ProtocolUnknown, false, "accept:\x16\x03\x01=connect+forward", sniff.Relay},
		{"unknown, incomplete, then HTTP", model.ProtocolUnknown, false, "accept:GET=arm data:GET_/= data:GET_/_HTTP/1.=disarm+serve", sniff.HTTP},
		{"unknown, incomplete, then not", model.ProtocolUnknown, false, "accept:GET=arm data:GET\r=disarm+connect+forward", sniff.Relay},
		{"unknown, incomplete for ever", model.ProtocolUnknown, false, "accept:GET=arm expired=connect+forward expired=", sniff.Relay},
		{"unknown, silent, HTTP while opening", model.ProtocolUnknown, false, "accept:=connect data:GET_/_HTTP/1.1=giveback+serve ready=", sniff.HTTP},
		{"unknown, silent, incomplete while opening", model.ProtocolUnknown, false, "accept:=connect data:G=arm ready= data:GET_/_HTTP/1.1=disarm+giveback+serve", sniff.HTTP},
		{"unknown, silent, opaque while opening", model.ProtocolUnknown, false, "accept:=connect data:\x00=forward ready=", sniff.Relay},
		{"unknown, ends while opening", model.ProtocolUnknown, false, "accept:=connect eof=forward ready=", sniff.Relay},
		{"unknown, silent, nobody there", model.ProtocolUnknown, false, "accept:=connect failed=refuse", sniff.Ended},
		{"unknown, nobody there, yet HTTP", model.ProtocolUnknown, false, "accept:=connect data:G=arm failed= data:GET_/_HTTP/1.1=disarm+serve", sniff.HTTP},
		{"unknown, nobody there, opaque", model.ProtocolUnknown, false, "accept:=connect data:G=arm failed= expired=refuse", sniff.Ended},
		{"unknown, server first", model.ProtocolUnknown, false, "accept:=connect ready=open spoke=forward data:x=", sniff.Relay},
		{"unknown, HTTP after open", model.ProtocolUnknown, false, "accept:=connect ready=open data:GET_/_HTTP/1.1=cancel+serve", sniff.HTTP},
		{"unknown, opaque after open", model.ProtocolUnknown, false, "accept:=connect ready=open data:*1\r=forward", sniff.Relay},
		{"unknown, incomplete after open, server speaks", model.ProtocolUnknown, false, "accept:=connect ready=open data:G=arm spoke=disarm+forward", sniff.Relay},
		{"unknown, incomplete after open, waits", model.ProtocolUnknown, false, "accept:=connect ready=open data:G=arm expired=forward", sniff.Relay},
		{"unknown, ends after open", model.ProtocolUnknown, false, "accept:=connect ready=open eof=forward", sniff.Relay},
		{"unknown, reset after open", model.ProtocolUnknown, false, "accept:=connect ready=open failed=refuse", sniff.Ended},
		{"learned http", model.LearnedHTTP, false, "accept:= data:GET_/_HTTP/1.1=serve", sniff.HTTP},
		{"learned http, wrong", model.LearnedHTTP, false, "accept:\x00=doubt+connect+forward", sniff.Relay},
		{"learned http, speaks in time", model.LearnedHTTP, true, "accept:=armlong data:GET_/_HTTP/1.1=disarm+serve", sniff.HTTP},
		{"learned http, silent, server first", model.LearnedHTTP, true, "accept:=armlong expired=connect ready=open spoke=doubt+forward", sniff.Relay},
		{"learned http, silent, late", model.LearnedHTTP, true, "accept:=armlong expired=connect ready=open data:GET_/_HTTP/1.1=cancel+serve", sniff.HTTP},
		{"learned http, ends", model.LearnedHTTP, true, "accept:=armlong eof=disarm+connect+forward", sniff.Relay},
		{"publish, server speaks while incomplete", model.ProtocolUnknown, false, "accept:=connect data:G=arm ready= spoke=disarm+forward", sniff.Relay},
	} {
		m := sniff.Machine{Known: c.known, Probe: c.probe}
		for s := range strings.SplitSeq(c.steps, " ") {
			event, want, _ := strings.Cut(s, "=")
			event = strings.ReplaceAll(event, "_", " ")
			if got := describe(step(&m, event)); got != want {
				t.Errorf("%s: %q answers %q, want %q", c.name, event, got, want)
			}
		}
		if m.State() != c.end {
			t.Errorf("%s: ends %v, want %v", c.name, m.State(), c.end)
		}
	}
}

// FuzzMachine throws events in any order at the machine and holds what must be true of every run.
func FuzzMachine(f *testing.F) {
	f.Add(uint8(0), []byte{1, 4, 2})
	f.Add(uint8(7), []byte{6, 4, 5, 1, 2, 3})
	f.Fuzz(func(t *testing.T, known uint8, events []byte) {
		m := sniff.Machine{Known: model.Protocol(known % 8), Probe: known&8 != 0}
		all := []byte("GET / HTTP/1.1\r\n")
		if known&16 != 0 {
			all = []byte("GEX\r\n no HTTP at all")
		}
		n, armed, decided := 0, false, 0
		var seen sniff.Action
		check := func(a sniff.Action) {
			if decided > 0 && a&^sniff.Refuse != 0 {
				t.Fatalf("%s after the decision", describe(a))
			}
			for _, once := range []sniff.Action{sniff.Connect, sniff.Open, sniff.Cancel, sniff.GiveBack, sniff.Serve, sniff.Forward, sniff.Refuse, sniff.Doubt} {
				if a&once != 0 && seen&once != 0 {
					t.Fatalf("%s twice", describe(a&once))
				}
			}
			if a&sniff.Disarm != 0 {
				if !armed {
					t.Fatal("disarm without a timer")
				}
				armed = false
			}
			if a&(sniff.Arm|sniff.ArmLong) != 0 {
				if armed {
					t.Fatal("armed twice")
				}
				armed = true
			}
			seen |= a
			switch {
			case a&sniff.Cancel != 0 && seen&sniff.Open == 0, a&sniff.GiveBack != 0 && seen&(sniff.Open|sniff.Connect) != sniff.Connect,
				a&sniff.Open != 0 && seen&sniff.Connect == 0, a&sniff.Forward != 0 && seen&sniff.Connect == 0:
				t.Fatalf("%s after %s", describe(a), describe(seen))
			case a&sniff.Serve != 0 && a&sniff.Forward != 0, seen&sniff.Serve != 0 && seen&sniff.Refuse != 0:
				t.Fatalf("two decisions: %s", describe(seen))
			case a&sniff.Serve != 0 && known&16 != 0 && m.Known != model.ProtocolHTTP && m.Known != model.ProtocolGRPC:
				t.Fatal("bytes that are no HTTP are served as HTTP")
			}
			if a&(sniff.Serve|sniff.Forward|sniff.Refuse) != 0 {
				decided++
				if armed {
					t.Fatal("the timer outlives the decision")
				}
			}
		}
		if known&32 != 0 {
			n = 3
		}
		check(m.Accepted(all[:n]))
		up := false
		for _, e := range events {
			switch e % 6 {
			case 0:
				n = min(n+1+int(e>>4), len(all))
				check(m.Data(all[:n]))
			case 1:
				if seen&sniff.Connect != 0 && !up {
					up = true
					check(m.Ready())
				}
			case 2:
				if up {
					check(m.Spoke())
				}
			case 3:
				if armed {
					armed = false
					check(m.Expired())
				}
			case 4:
				check(m.EOF())
				return
			case 5:
				if seen&sniff.Connect != 0 && !up {
					check(m.Failed())
					return
				}
			}
		}
	})
}

func TestLearner(t *testing.T) {
	var l sniff.Learner
	for i, c := range []struct {
		saw     model.Protocol
		changed bool
		now     model.Protocol
	}{
		{model.ProtocolTCP, false, model.ProtocolUnknown},
		{model.LearnedHTTP, true, model.LearnedHTTP},
		{model.LearnedHTTP, false, model.LearnedHTTP},
		{model.LearnedServerFirst, true, model.LearnedServerFirst},
		{model.LearnedHTTP, true, model.ProtocolUnknown},
		{model.LearnedHTTP, false, model.ProtocolUnknown},
	} {
		if got := l.Saw(c.saw); got != c.changed || l.Learned() != c.now {
			t.Errorf("%d: saw %v: changed %t, now %v", i, c.saw, got, l.Learned())
		}
	}
	if !l.Mixed() {
		t.Error("two contradictions are not mixed")
	}
}
