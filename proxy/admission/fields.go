package admission

import (
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// shown is what a client is told of one limit.
type shown struct {
	policy string
	item   string
	left   uint32
	reset  time.Duration
}

// show keeps what the client is told of a limit, if it is told.
func (t *Ticket) show(r *rule, b *bucket, now time.Duration) {
	if !r.Headers || t.nshown == maxShown {
		return
	}
	s := b.state.Load()
	t.shown[t.nshown] = shown{policy: r.policy, item: r.item, left: r.rate.Left(s, now), reset: r.rate.Full(s, now)}
	t.nshown++
}

// showAnswer is show for what a service has answered.
func (t *Ticket) showAnswer(r *rule, d *model.DescriptorAnswer) {
	if !r.Headers || t.nshown == maxShown || d.Requests == 0 {
		return
	}
	t.shown[t.nshown] = shown{policy: policyOf(r.Name, d.Requests, d.Window, false), item: r.item, left: d.Left, reset: d.Reset}
	t.nshown++
}

// Shown reports whether the client is told of limits.
func (t *Ticket) Shown() bool { return t.nshown > 0 }

// AppendPolicy appends the value of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10, section 3): each limit's
// name, quota and window.
func (t *Ticket) AppendPolicy(b []byte) []byte {
	for i := range t.shown[:t.nshown] {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, t.shown[i].policy...)
	}
	return b
}

// AppendState appends the value of RateLimit (section 4): what is left, and in how many seconds all of it is back.
func (t *Ticket) AppendState(b []byte) []byte {
	for i := range t.shown[:t.nshown] {
		if i > 0 {
			b = append(b, ", "...)
		}
		s := &t.shown[i]
		b = strconv.AppendUint(append(b, s.item...), uint64(s.left), 10)
		b = strconv.AppendInt(append(b, ";t="...), seconds(s.reset), 10)
	}
	return b
}

// AppendRetry appends the value of Retry-After: at least a second.
func (t *Ticket) AppendRetry(b []byte) []byte {
	return strconv.AppendInt(b, max(seconds(t.Retry), 1), 10)
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// policyOf makes a member of RateLimit-Policy. The window is left out where it is not whole seconds, which is all it can say.
func policyOf(name string, quota uint32, window time.Duration, bytes bool) string {
	b := appendString(nil, name)
	b = strconv.AppendUint(append(b, ";q="...), uint64(quota), 10)
	if window > 0 && window%time.Second == 0 {
		b = strconv.AppendInt(append(b, ";w="...), int64(window/time.Second), 10)
	}
	if bytes {
		b = append(b, `;qu="content-bytes"`...)
	}
	return string(b)
}

// appendString writes a string of RFC 9651 section 3.3.3; what it cannot hold becomes a question mark.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
