package recovery

import (
	"encoding/binary"
	"errors"
)

// Learned is what is known of one destination.
type Learned struct {
	// Service is of the service as a whole: from a failure until any of its endpoints succeeds. Waits between retries follow
	// from it.
	Service Sketch
	// Endpoint is of its endpoints: from a failure of one until the same one succeeds. How long one is ejected follows from it.
	Endpoint Sketch
}

// Merge adds what another has learned.
func (l *Learned) Merge(o *Learned) {
	l.Service.Merge(&o.Service)
	l.Endpoint.Merge(&o.Endpoint)
}

// Empty reports whether nothing was learned.
func (l *Learned) Empty() bool { return l.Service.Weight()+l.Endpoint.Weight() == 0 }

// Append adds the wire form: both sketches, each behind its length.
func (l *Learned) Append(b []byte) []byte {
	for _, s := range []*Sketch{&l.Service, &l.Endpoint} {
		w := s.Append(nil)
		b = append(binary.AppendUvarint(b, uint64(len(w))), w...)
	}
	return b
}

// DecodeLearned reads the wire form. A newer peer may say more behind the sketches.
func DecodeLearned(b []byte) (l Learned, err error) {
	for _, s := range []*Sketch{&l.Service, &l.Endpoint} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return Learned{}, errors.New("recovery: a sketch is cut off")
		}
		if *s, err = Decode(b[k : k+int(n)]); err != nil {
			return Learned{}, err
		}
		b = b[k+int(n):]
	}
	return l, nil
}
