package authz

// Candidates answers how many rules a request may be held against, all actions together.
func (s *Set) Candidates(a *Attributes) (n int) {
	for _, list := range s.inForce.at(a.Port).request {
		for _, x := range list {
			x.each(a, func(list []*rule) { n += len(list) })
		}
	}
	return n
}

// Looked answers how many rules there are, and how many of them a request may be held against.
func (s *Set) Looked(a *Attributes) (all, some int) {
	for _, list := range s.inForce.at(a.Port).request {
		for _, x := range list {
			seen := map[*rule]bool{}
			x.each(a, func(list []*rule) {
				for _, r := range list {
					seen[r] = true
				}
			})
			all, some = all+len(x.all(nil)), some+len(seen)
		}
	}
	return all, some
}

func (x *index) all(seen map[*rule]bool) map[*rule]bool {
	if seen == nil {
		seen = map[*rule]bool{}
	}
	for _, r := range x.rest {
		seen[r] = true
	}
	for i := range x.by {
		x.by[i].tree.all(seen)
	}
	return seen
}

func (t *tree) all(seen map[*rule]bool) {
	for _, x := range []*index{t.exact, t.open} {
		if x != nil {
			x.all(seen)
		}
	}
	if t.element != nil {
		t.element.all(seen)
	}
	for _, kid := range t.kids {
		kid.all(seen)
	}
}
