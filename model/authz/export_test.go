package authz

// Candidates answers how many rules a request may be held against, all actions together.
func (s *Set) Candidates(a *Attributes) (n int) {
	for i := range s.inForce.at(a.Port).request {
		s.inForce.at(a.Port).request[i].each(a, func(list []*rule) { n += len(list) })
	}
	return n
}
