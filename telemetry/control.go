package telemetry

// Names of metrics of the control plane.
const (
	ControlCertificateLeft    = "tulle_control_certificate_left_seconds"
	ControlRotationStage      = "tulle_control_rotation_stage"
	ControlAlarms             = "tulle_control_alarms"
	ControlProxies            = "tulle_control_proxies_connected"
	ControlConnections        = "tulle_control_connections"
	ControlConnectionsRefused = "tulle_control_connections_refused_total"
	ControlPushes             = "tulle_control_pushes_total"
	ControlNacks              = "tulle_control_nacks_total"
	ControlDecisionsKept      = "tulle_control_decisions_kept"
	ControlDecisionsDropped   = "tulle_control_decisions_dropped_total"
	ControlIssued             = "tulle_control_certificates_issued_total"
	ControlIssuerFailures     = "tulle_control_issuer_failures_total"
)

// ControlMetrics answers every metric that a control plane has.
func ControlMetrics() []Metric {
	return append([]Metric{
		{ControlCertificateLeft, "gauge", "How long certificates are still valid, in seconds; negative: one has ended.", []string{"certificate"}},
		{ControlRotationStage, "gauge", "Stage of the mesh's roots (`tulle cert`): it grows with each step.", []string{"phase"}},
		{ControlAlarms, "gauge", "Alarms about identities (`tulle cert`).", nil},
		{ControlProxies, "gauge", "Proxies that are connected to this control plane.", nil},
		{ControlConnections, "gauge", "Connections of whoever has proven an identity.", nil},
		{ControlConnectionsRefused, "counter", "Connections refused because their identity had too many.", nil},
		{ControlPushes, "counter", "Responses sent to proxies, of one or more resources each.", []string{"type"}},
		{ControlNacks, "counter", "Responses of which a proxy has refused something.", []string{"type"}},
		{ControlDecisionsKept, "gauge", "Kinds of decisions of proxies that are kept (`tulle authz suggest`, `what-if`).", nil},
		{ControlDecisionsDropped, "counter", "Decisions of proxies that were counted, but that there was no room to keep.", nil},
		{ControlIssued, "counter", "Certificates of workloads and control planes issued.", nil},
		{ControlIssuerFailures, "counter", "Certificates that could not be issued.", nil},
	}, processMetrics()...)
}

// processMetrics are of whatever process tells them.
func processMetrics() []Metric {
	return []Metric{
		{ProcessCPU, "counter", "CPU time of the process, user and system, in seconds.", nil},
		{ProcessMemory, "gauge", "Resident memory, shared file pages included, in bytes.", nil},
		{ProcessPrivate, "gauge", "Resident private memory (RssAnon), in bytes: of a proxy, what one more sidecar costs.", nil},
		{ProcessOpenFiles, "gauge", "Open file descriptors.", nil},
		{ProcessStart, "gauge", "When the process began, in seconds since 1970.", nil},
		{GoGoroutines, "gauge", "Goroutines.", nil},
		{GoHeap, "gauge", "Bytes of the heap in use by objects.", nil},
		{GoGarbageCollection, "counter", "Completed cycles of the garbage collector.", nil},
	}
}
