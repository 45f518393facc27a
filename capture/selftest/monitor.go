package selftest

import "time"

// How often is looked.
const (
	every   = 10 * time.Second       // while all is well; spread by a fifth either way
	confirm = 300 * time.Millisecond // after a failure
	watch   = time.Second            // during an alarm
	enough  = 3                      // failures in a row that are an alarm
)

// Monitor says when there is an alarm, and when to look next. Its zero value is ready to use; it keeps no time of its own.
type Monitor struct {
	row   int // of failures
	since time.Duration
	alarm bool
}

// Change is what a check has changed.
type Change uint8

// Changes.
const (
	Same   Change = iota
	Raised        // the alarm begins
	Ended         // and ends
)

// Note takes what a check has said at a time (since any beginning).
func (m *Monitor) Note(failed bool, now time.Duration) Change {
	if !failed {
		m.row = 0
		if m.alarm {
			m.alarm = false
			return Ended
		}
		return Same
	}
	if m.row++; m.row == 1 && !m.alarm {
		m.since = now
	}
	if m.row >= enough && !m.alarm {
		m.alarm = true
		return Raised
	}
	return Same
}

// Next answers how long to wait for the next check; random is from 0 up to 1.
func (m *Monitor) Next(random float64) time.Duration {
	d := every
	switch {
	case m.alarm:
		d = watch
	case m.row > 0:
		d = confirm
	}
	return time.Duration(float64(d) * (0.8 + 0.4*random))
}

// Alarm reports whether there is one, and since when checks have failed.
func (m *Monitor) Alarm() (bool, time.Duration) { return m.alarm, m.since }
