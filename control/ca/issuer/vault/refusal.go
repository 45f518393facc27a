package vault

import (
	"encoding/json"
	"net/http"
	"strings"
)

// refusal reads a refusal; advise says what to do about one that is not for being sealed.
func refusal(advise func(status int, said string) string) func(status int, body []byte) (said, next string) {
	return func(status int, body []byte) (said, next string) {
		var e struct {
			Errors []string `json:"errors"`
		}
		if err := json.Unmarshal(body, &e); err == nil {
			for n, text := range e.Errors {
				e.Errors[n] = plain(text)
			}
			said = strings.Join(e.Errors, "; ")
		}
		if said == "" {
			said = http.StatusText(status)
		}
		if strings.Contains(said, "sealed") {
			return said, "unseal it"
		}
		return said, advise(status, said)
	}
}

// plain takes off the heading and the bullets that Vault puts before errors, also before a single one.
func plain(text string) string {
	if _, list, ok := strings.Cut(text, " occurred:\n\t* "); ok {
		return strings.ReplaceAll(strings.TrimSpace(list), "\n\t* ", "; ")
	}
	return text
}

// signing says what to do when a path does not sign.
func signing(path string) func(status int, said string) string {
	return func(status int, said string) string {
		switch {
		case status == http.StatusForbidden && strings.Contains(said, "invalid token"):
			return "is the token good? it may have ended, or been taken back"
		case status == http.StatusForbidden:
			return "is the token good, and does its policy allow 'update' on " + path + "?"
		case status == http.StatusNotFound:
			return "are mount and role right?"
		case strings.Contains(said, "unknown role"):
			return "is the role right?"
		case strings.Contains(said, "could not fetch the CA certificate"):
			return "does the mount have an issuer that may sign?"
		case strings.Contains(said, "expiration of the CA certificate"):
			return "renew the issuer in the mount, or ask for less (--identity-lifetime)"
		case status == http.StatusBadRequest:
			return "does the role allow this name (allowed_uri_sans, require_cn=false) and the key (key_type=ec)?"
		}
		return ""
	}
}

// loggingIn says what to do when AppRole gives no token.
func loggingIn(status int, _ string) string {
	switch status {
	case http.StatusBadRequest:
		return "are role ID and secret ID those of the AppRole?"
	case http.StatusForbidden, http.StatusNotFound:
		return "is the mount of AppRole right? after several wrong secret IDs it refuses the right one too, by default for 15 minutes"
	}
	return ""
}

// reading says what to do when a mount does not tell its chain.
func reading(status int, _ string) string {
	if status == http.StatusForbidden || status == http.StatusNotFound {
		return "is the mount right?"
	}
	return ""
}
