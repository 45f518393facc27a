package recovery

import "time"

// Report is what one proxy has learned about one destination since its last report.
type Report struct {
	Cluster string // name of the cluster: "reviews.default:9080"
	Learned Learned
	Last    []Outage // of the service as a whole
}

// Outage is one that is over.
type Outage struct {
	Ended  time.Time
	Lasted time.Duration
}
