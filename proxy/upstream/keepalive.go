package upstream

import "time"

// keepAlive asks the peer for a sign of life every now and then, where the cluster wants it.
func (u *HTTP2) keepAlive() {
	if u.every <= 0 {
		return
	}
	if u.patience <= 0 {
		u.patience = defaultPatience
	}
	u.ping.Expired = u.askAlive
	u.c.Loop().Arm(&u.ping, u.every)
}

// defaultPatience is for how long an answer to a PING is waited for, where the cluster does not say.
const defaultPatience = 10 * time.Second

// askAlive sends a PING; anything that the peer says then is a sign of life.
func (u *HTTP2) askAlive() {
	u.told = false
	u.ping.Expired = u.judge
	u.c.Loop().Arm(&u.ping, u.patience)
	u.h2.Ping([8]byte{})
	u.flush()
}

// judge gives up a peer that has said nothing.
func (u *HTTP2) judge() {
	if u.told {
		u.keepAlive()
		return
	}
	u.cause = errSilent
	u.stop()
	u.c.Reset()
}
