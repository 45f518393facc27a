package compile

import (
	"net/url"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// NameValue is a name and its value.
type NameValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// asking is the fields of a Question: authz.Fields.
type asking struct {
	q     *Question
	query []NameValue
	host  string // as it is sent
	bears bool   // a token that counts, so its claims do
}

// readQuery takes a query apart as programs do; what cannot be decoded is as it was sent.
func (s *asking) readQuery(text string) {
	decoded := func(v string) string {
		if d, err := url.QueryUnescape(v); err == nil {
			return d
		}
		return v
	}
	for pair := range strings.SplitSeq(text, "&") {
		if name, v, _ := strings.Cut(pair, "="); pair != "" {
			s.query = append(s.query, NameValue{decoded(name), decoded(v)})
		}
	}
}

// Value implements authz.Fields.
func (s *asking) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	switch kind {
	case model.ConditionHeader:
		if name == "host" {
			return s.host, i == 0
		}
		return nth(s.q.Headers, name, i, strings.EqualFold)
	case model.ConditionQuery:
		return nth(s.query, name, i, equal)
	case model.ConditionCookie:
		return nth(s.cookies(), name, i, equal)
	case model.ConditionClaim:
		if !s.bears {
			return "", false
		}
		return nth(s.q.Claims, name, i, equal)
	}
	return "", false
}

func equal(a, b string) bool { return a == b }

// nth answers the i-th value of a name.
func nth(list []NameValue, name string, i int, fits func(a, b string) bool) (string, bool) {
	for _, f := range list {
		if fits(f.Name, name) {
			if i == 0 {
				return f.Value, true
			}
			i--
		}
	}
	return "", false
}

func (s *asking) cookies() (out []NameValue) {
	for _, h := range s.q.Headers {
		if !strings.EqualFold(h.Name, "cookie") {
			continue
		}
		for pair := range strings.SplitSeq(h.Value, ";") {
			if name, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
				if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
					v = v[1 : n-1]
				}
				out = append(out, NameValue{name, v})
			}
		}
	}
	return out
}
