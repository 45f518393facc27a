package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
)

// Texts that fit nothing there can be: a rule that denies by one of them denies nobody, one that excludes it excludes nothing.

// commonMethods are the methods that are written wrongly with small letters: those of RFC 9110 section 9.3, RFC 5789 and RFC 4918.
func commonMethods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"}
}

// methods checks texts about methods, which are compared as they are (RFC 9110 section 9.1).
func (c *check) methods(at string, list []string) int {
	for i, s := range list {
		here, plain := fmt.Sprintf("%s[%d]", at, i), strings.Trim(s, "*")
		if plain == "" || strings.HasPrefix(s, "~") {
			continue
		}
		upper := strings.ToUpper(s)
		meant := slices.ContainsFunc(commonMethods(), func(m string) bool { return textFits(upper, m) })
		switch {
		case !token(plain):
			c.fail(here, "%q is not a method, such as GET", s)
		case meant && s != upper && !slices.ContainsFunc(commonMethods(), func(m string) bool { return textFits(s, m) }):
			c.fail(here, "%q never fits: methods are compared as they are; write %q", s, upper)
		}
	}
	return c.texts(at, list, "", "")
}

// textFits holds a text with * at its ends against s.
func textFits(text, s string) bool {
	first, last := strings.HasPrefix(text, "*"), strings.HasSuffix(text, "*")
	switch plain := strings.Trim(text, "*"); {
	case first && last:
		return strings.Contains(s, plain)
	case first:
		return strings.HasSuffix(s, plain)
	case last:
		return strings.HasPrefix(s, plain)
	default:
		return s == plain
	}
}

// accounts checks "cart" and "shop/cart". Accounts of this mesh have names as Services have; those of others, which only a source that
// names their trust domain means, what SPIFFE allows (SPIFFE-ID section 2.2).
func (c *check) accounts(at string, list []string, foreign bool) int {
	set, such := lower+digits+"-", "small letters, digits and '-'; for one of another mesh write its SPIFFE ID in principals"
	if foreign {
		set, such = set+upper+"._", "letters, digits, '-', '.' and '_'"
	}
	for i, s := range list {
		if s == "" || strings.HasPrefix(s, "~") {
			continue
		}
		here, parts := fmt.Sprintf("%s[%d]", at, i), strings.Split(s, "/")
		switch {
		case len(parts) > 2:
			c.fail(here, "%q is not a service account: write cart, or shop/cart for one of another namespace", s)
		case slices.Contains(parts, ""):
			c.fail(here, "%q names no account or no namespace: write cart, shop/cart or shop/*", s)
		case slices.ContainsFunc(parts, func(p string) bool { return strings.Trim(p, set+"*") != "" || len(p) > 64 }):
			c.fail(here, "%q fits nobody: names of namespaces and service accounts have at most 63 of %s", s, such)
		}
	}
	return c.texts(at, list, "", "")
}
