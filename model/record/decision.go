package record

import "github.com/tulle-mesh/tulle/model"

// Verdict is what policies say.
type Verdict uint8

// Verdicts.
const (
	Unasked Verdict = iota // no policy was in force
	Allowed
	Denied
)

// String answers "", "allowed" or "denied".
func (v Verdict) String() string { return [...]string{"", "allowed", "denied"}[v%3] }

// Decision is what the workload's policies said about an exchange or a connection: the last of it, should they have been asked
// again while it was open. Names of policies and rules are interned.
type Decision struct {
	Verdict Verdict
	Action  model.Action // of Policy
	Policy  string       // that decided, "AuthorizationPolicy/default/cart"; "": none did, by default or for absence
	Rule    string       // of it, as it is named or "rules[2]"
	Absent  bool         // denied because no rule of the policies that allow held

	// Dry is what would have been decided if the policies in dry run were in force, where that is something else; Unasked: the
	// same. The rest is said as above.
	Dry       Verdict
	DryPolicy string
	DryRule   string
	DryAbsent bool

	Audit     string // the auditing policy of which a rule held; "": none
	AuditRule string

	// Nearest is, for a denial that was logged, the rule that came closest and what was missing; "": not looked for.
	Nearest string
}
