package vault

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/web"
)

// getToken is what an error says was to be done.
const getToken = "get a token"

// pause is how long IDs that have been refused n times are not shown again. Vault locks a role ID for 15 minutes after five wrong secret IDs
// without as long between two of them, and refuses the right one too then.
func pause(n int) time.Duration {
	return [...]time.Duration{15 * time.Second, time.Minute, 16 * time.Minute}[min(n, 3)-1]
}

// session is what AppRole has given. Who has put something into turn may use the rest.
type session struct {
	turn  chan struct{} // holds one
	token string        // "": none
	until time.Time

	refused [sha256.Size]byte // role ID and secret ID
	times   int               // one after the other
	why     error
	again   time.Time // when they may be shown
}

// byRole answers a token that is not a bad one. One caller logs in, the others wait for what comes of it.
func (i *Issuer) byRole(ctx context.Context, now time.Time, bad string) (string, error) {
	s := &i.session
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", &issuer.Error{Issuer: i.Name(), What: getToken, Err: errors.New("no answer in time"), Next: "is it up, and is it its address?", Again: true}
	}
	if s.token != "" && s.token != bad && now.Before(s.until) {
		return s.token, nil
	}
	role, err := issuer.ReadSecret(i.cfg.RoleIDFile)
	if err != nil {
		return "", i.wrong(getToken, err)
	}
	secret, err := issuer.ReadSecret(i.cfg.SecretIDFile)
	if err != nil {
		return "", i.wrong(getToken, err)
	}
	ids := sha256.Sum256([]byte(role + "\n" + secret))
	if ids == s.refused && now.Before(s.again) {
		return "", s.why
	}
	token, lease, err := i.login(ctx, role, secret)
	if refusedWith(err, http.StatusBadRequest) {
		if ids != s.refused {
			s.times = 0
		}
		s.times++
		s.refused, s.why, s.again = ids, err, now.Add(pause(s.times))
	}
	if err != nil {
		return "", err
	}
	s.token, s.until, s.times, s.again = token, now.Add(lease*2/3), 0, time.Time{}
	return token, nil
}

// login answers a token and how long it lasts.
func (i *Issuer) login(ctx context.Context, role, secret string) (string, time.Duration, error) {
	body, err := json.Marshal(map[string]string{"role_id": role, "secret_id": secret})
	if err != nil {
		return "", 0, i.wrong(getToken, errors.New("the role ID cannot be written"))
	}
	answer, err := i.web.Do(ctx, web.Question{Issuer: i.Name(), What: getToken, Method: http.MethodPost, Path: "/v1/auth/" + i.cfg.AuthMount + "/login", Header: i.header(""), Body: body, Say: refusal(loggingIn)})
	if err != nil {
		return "", 0, err
	}
	var given struct {
		Auth struct {
			Token string `json:"client_token"`
			Lease int    `json:"lease_duration"` // seconds; 0: it does not end
		} `json:"auth"`
	}
	if err := json.Unmarshal(answer, &given); err != nil || given.Auth.Token == "" {
		return "", 0, i.wrong(getToken, errors.New("its answer to the login has no token"))
	}
	lease := time.Duration(given.Auth.Lease) * time.Second
	if lease <= 0 {
		lease = time.Hour
	}
	return given.Auth.Token, lease, nil
}
