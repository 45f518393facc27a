package trust

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Federated is what is known of another trust domain that is believed.
type Federated struct {
	TrustDomain string        `json:"trustDomain"`
	Roots       [][]byte      `json:"-"` // DER; none: nothing is known yet, and nobody of it is believed
	Bundle      []Certificate `json:"bundle"`
	From        string        `json:"from"`             // "MeshConfig", a file, an address
	Fetched     time.Time     `json:"fetched,omitzero"` // when it was read last
	Sequence    uint64        `json:"sequence,omitempty"`
	Failing     string        `json:"failing,omitempty"` // why it cannot be read again
	Since       time.Time     `json:"since,omitzero"`    // of Failing
}

// federatedAlarm is after how long a bundle that cannot be read again is an alarm.
const federatedAlarm = 10 * time.Minute

// believed adds what the mesh believes besides its own trust domain.
func (k *Keeper) believed(r *Report, now time.Time) {
	r.Aliases, r.Federated = []string{}, []Federated{}
	if k.cfg.Others == nil {
		return
	}
	aliases, federated := k.cfg.Others()
	r.Aliases, r.Federated = append(r.Aliases, aliases...), append(r.Federated, federated...)
	for i := range r.Federated {
		f := &r.Federated[i]
		f.Bundle = []Certificate{}
		var last time.Time
		for _, der := range f.Roots {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				continue // what cannot be read was not taken in
			}
			f.Bundle = append(f.Bundle, certificate("root", c, ""))
			if c.NotAfter.After(last) {
				last = c.NotAfter
			}
		}
		f.alarm(r, last, now)
	}
	slices.SortFunc(r.Federated, func(a, b Federated) int { return cmp.Compare(a.TrustDomain, b.TrustDomain) })
}

// alarm says what is wrong with it; last is when the last of its roots ends.
func (f *Federated) alarm(r *Report, last, now time.Time) {
	say := func(left time.Duration, format string, args ...any) {
		r.Alarms = append(r.Alarms, Alarm{What: "trust domain " + f.TrustDomain, Message: fmt.Sprintf(format, args...), Left: left})
	}
	switch {
	case len(f.Roots) == 0 && f.Failing != "":
		say(0, "nobody of it is believed, since its bundle cannot be read: %s: correct spec.federation of MeshConfig, or what it names", f.Failing)
	case len(f.Roots) > 0 && !now.Before(last):
		say(0, "all roots in its bundle (%s) have ended, so nobody of it is believed: get a new one from its owner", f.From)
	case len(f.Roots) > 0 && f.Failing != "" && now.Sub(f.Since) >= federatedAlarm:
		say(last.Sub(now), "its bundle could not be read again for %s, the last one stays in force: %s", now.Sub(f.Since).Round(time.Second), f.Failing)
	}
}
