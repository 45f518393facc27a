package recovery

import "time"

// Report is what one proxy has learned about one destination since its last report.
type Report struct {
	Cluster string // name of the cluster: "reviews.default:9080"
	Learned Learned
	Last    []Outage // of the service as a whole

	Made, Refused uint64 // further attempts since its last report, and those that the budget did not allow
	Left          int64  // that the budget allows now; -1: it has none
}

// Outage is one that is over.
type Outage struct {
	Ended  time.Time
	Lasted time.Duration
}
