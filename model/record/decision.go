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

	// Word is what an external authorizer had to say, Authorizer who that is, and External and ExternalRule the policy that asks it.
	// Policy may be another one, which allows.
	Word         Word
	Authorizer   model.PortName
	External     string
	ExternalRule string

	// Refusal is what there is to say where something else than the workload's authorization policies refused.
	Refusal Refusal

	// Nearest is, for a denial that was logged, the rule that came closest and what was missing; "": not looked for.
	Nearest string
}

// Word is what an external authorizer had to say.
type Word uint8

// Words.
const (
	NotAsked Word = iota // nobody was asked
	Agreed
	Objected
	Unanswered // nobody has answered: refused, or let through with failOpen
)

// String answers "", "agreed", "refused" or "no answer".
func (w Word) String() string { return [...]string{"", "agreed", "refused", "no answer"}[w%4] }

// AuthorizerName answers who was asked, "auth.default:9000"; "": nobody. It allocates.
func (d *Decision) AuthorizerName() string {
	if d.Authorizer.Service.IsZero() {
		return ""
	}
	return d.Authorizer.String()
}

// Refusal says by what something was refused that authorization policies were not asked about: the token of a request, the mode of a
// port, the mode and the rules about what is outside of the mesh. Cause may also say more about what an authorizer has refused.
type Refusal struct {
	By     string // "AuthenticationPolicy/default/cart jwt[0]", "MeshConfig/mesh mode Registry"; "": nothing that has a name
	Issuer string // that a token names, believed or not, up to a bound; "": none
	Cause  string
}

// Refused reports whether something is said.
func (r *Refusal) Refused() bool { return r.By != "" || r.Cause != "" }
