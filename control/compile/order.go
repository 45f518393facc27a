package compile

import (
	"cmp"

	"github.com/tulle-mesh/tulle/model"
)

// precedence orders matches as Gateway API demands (HTTPRouteRule.matches): exact path, then regular expression
// (its place is ours to choose), then the longest prefix; then a method, then more headers, then more query
// parameters. It answers less than 0 when a comes first.
func precedence(a, b *model.Match) int {
	return cmp.Or(
		cmp.Compare(pathRank(b.PathKind), pathRank(a.PathKind)),
		cmp.Compare(len(b.Path), len(a.Path)),
		cmp.Compare(methodRank(b.Method), methodRank(a.Method)),
		cmp.Compare(len(b.Headers), len(a.Headers)),
		cmp.Compare(len(b.Query), len(a.Query)),
	)
}

func pathRank(k model.PathKind) int {
	switch k {
	case model.PathExact:
		return 2
	case model.PathRegex:
		return 1
	}
	return 0
}

func methodRank(m string) int {
	if m != "" {
		return 1
	}
	return 0
}
