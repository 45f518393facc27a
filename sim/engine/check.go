package engine

import (
	"fmt"
	"time"
)

// settled looks at the end of a run: what came of every request, and that nothing is left over.
func (r *run) settled() error {
	r.world.Run(30 * time.Second) // what closes takes its time
	if r.err != nil {
		return r.err
	}
	calm := r.faults == Faults{}
	for _, q := range r.requests {
		switch {
		case q.outcome == "":
			return fmt.Errorf("lost: %s", q)
		case q.outcome == answered && q.delivered == 0:
			return fmt.Errorf("answered by nobody: %s", q)
		case calm && q.outcome == cut && q.delivered == 0 && q.behind: // the connection may end after an early answer
		case calm && (q.outcome != answered || q.delivered != 1 || q.complete != 1 && !q.early):
			return fmt.Errorf("nothing was in its way: %s", q)
		case q.outcome == refused && q.reason == "":
			return fmt.Errorf("refused without a reason: %s", q)
		}
	}
	if n := r.out.exchange.Open(); n > 0 {
		return fmt.Errorf("%d exchanges are left", n)
	}
	return r.records()
}

// records: one of each exchange, and what they count is what happened.
func (r *run) records() error {
	want := 0
	for _, q := range r.requests {
		if q.outcome == answered {
			want++
		}
	}
	calm := r.faults == Faults{}
	if got := len(r.out.records); got < want || calm && got != want {
		return fmt.Errorf("%d records of %d requests that were answered", got, want)
	}
	if !calm {
		return nil
	}
	var sent, received, wantSent, wantReceived int64
	for i := range r.out.records {
		sent += r.out.records[i].RequestBytes
		received += r.out.records[i].ResponseBytes
	}
	for _, q := range r.requests {
		if q.early { // the rest of a body whose answer is complete need not be sent
			return nil
		}
		wantSent += int64(q.body)
		if !q.bodiless() {
			wantReceived += int64(q.answer)
		}
	}
	if sent != wantSent || received != wantReceived {
		return fmt.Errorf("%d bytes of requests and %d of responses were counted, %d and %d passed", sent, received, wantSent, wantReceived)
	}
	return nil
}
