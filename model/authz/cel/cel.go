// Package cel compiles the expressions of AuthorizationPolicies: the Common Expression Language over what is known about a
// request. It promises that what compiles answers a bool, has no effect, looks at nothing but the Attributes it is given, and
// ends within a bounded cost: an expression that would cost more, or that fails in another way, is an error, which
// model/authz counts against the request. What the language needs is built when an expression is compiled, never before. What
// is compiled is immutable and safe for concurrent use. Pure. Start reading at Compile; the words of the language are in
// words.go.
package cel

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tulle-mesh/tulle/model/authz"
)

// Bounds of an expression.
const (
	maxText  = 4096  // bytes, as the kind says
	maxDepth = 32    // of nesting
	maxCost  = 20000 // of one evaluation, in the units of CEL: about one for each step and for each 10 bytes that are looked at
	maxSaid  = 256   // bytes of an error's message: it may quote what was sent
)

// Error is what is wrong with an expression, and where.
type Error struct {
	Line, Column int // from 1; 0: as a whole
	Message      string
}

// Error answers "line 1, column 9: undeclared reference to 'requst'".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Compile compiles one expression; the error is an *Error. It costs up to a few milliseconds and allocates: not for the path of
// a request.
func Compile(text string) (authz.Expression, error) {
	if len(text) > maxText {
		return nil, &Error{Message: fmt.Sprintf("has %d bytes: at most %d are taken", len(text), maxText)}
	}
	env, err := cel.NewEnv(words()...)
	if err != nil {
		return nil, &Error{Message: err.Error()}
	}
	tree, issues := env.Compile(text)
	if all := issues.Errors(); len(all) > 0 {
		first := all[0]
		return nil, &Error{Line: max(first.Location.Line(), 1), Column: max(first.Location.Column(), 0) + 1, Message: first.Message}
	}
	if tree.OutputType() != cel.BoolType {
		return nil, &Error{Line: 1, Column: 1, Message: fmt.Sprintf("answers %s, and must answer bool: compare it with something", tree.OutputType())}
	}
	if err := allowed(tree.NativeRep()); err != nil {
		return nil, err
	}
	p, err := env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, &Error{Message: err.Error()}
	}
	return program{p, looks(tree.NativeRep())}, nil
}

// allowed refuses what would read files (time zones by name), and what has the right types and can only fail.
func allowed(tree *ast.AST) (err error) {
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || err != nil {
			return
		}
		call, message := e.AsCall(), ""
		switch name := call.FunctionName(); {
		case zoned[name] && len(call.Args()) == 1 && !fixedZone(call.Args()[0]):
			message = name + ` takes a time zone as a difference to UTC, such as "+02:00"`
		case (name == operators.Equals || name == operators.NotEquals) && tree.GetType(call.Args()[0].ID()).Kind() == types.OpaqueKind:
			message = "fields cannot be compared as a whole: compare one, by its name"
		default:
			return
		}
		at := tree.SourceInfo().GetStartLocation(e.ID())
		err = &Error{Line: at.Line(), Column: at.Column() + 1, Message: message}
	}))
	return err
}

// fixedZone reports whether an argument is written out as a difference to UTC.
func fixedZone(e ast.Expr) bool {
	if e.Kind() != ast.LiteralKind {
		return false
	}
	s, ok := e.AsLiteral().(types.String)
	return ok && (s == "UTC" || len(s) == 6 && (s[0] == '+' || s[0] == '-') && digits(s[1:3]) && s[3] == ':' && digits(s[4:6]))
}

func digits(s types.String) bool { return s[0] >= '0' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9' }

// zoned are the functions that take a time zone.
var zoned = map[string]bool{"getFullYear": true, "getMonth": true, "getDate": true, "getDayOfMonth": true, "getDayOfWeek": true,
	"getDayOfYear": true, "getHours": true, "getMinutes": true, "getSeconds": true, "getMilliseconds": true}

// program is a compiled expression.
type program struct {
	p     cel.Program
	looks authz.Looks
}

// Looks implements authz.Looker.
func (p program) Looks() authz.Looks { return p.looks }

// Holds implements authz.Expression.
func (p program) Holds(a *authz.Attributes) (bool, error) {
	v, _, err := p.p.Eval(asked{a})
	if err != nil {
		return false, fmt.Errorf("%s", clip(err.Error()))
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("answers %s", v.Type().TypeName())
	}
	return bool(b), nil
}

// clip keeps an error short.
func clip(s string) string { return s[:min(len(s), maxSaid)] }
