package cel

import (
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// kindOf answers the kind of condition that a variable of type fields holds.
func kindOf(word string) (model.ConditionKind, bool) {
	switch word {
	case "request.headers":
		return model.ConditionHeader, true
	case "request.query":
		return model.ConditionQuery, true
	case "request.cookies":
		return model.ConditionCookie, true
	case "token.claims":
		return model.ConditionClaim, true
	}
	return 0, false
}

// looks answers what an expression that was checked looks at.
func looks(tree *ast.AST) (out authz.Looks) {
	written := map[int64]bool{} // uses of fields whose name is written out
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			of, name := fieldOf(e.AsCall())
			if of == nil || of.Kind() != ast.IdentKind || name.Kind() != ast.LiteralKind {
				return
			}
			kind, ok := kindOf(of.AsIdent())
			text, isText := name.AsLiteral().(types.String)
			if !ok || !isText {
				return
			}
			n := authz.Name{Kind: kind, Name: string(text), Plain: true}
			if kind == model.ConditionHeader {
				n.Name = strings.ToLower(n.Name)
			}
			out.Names, written[of.ID()] = append(out.Names, n), true
		case ast.IdentKind:
			word := e.AsIdent()
			if _, ok := kindOf(word); ok && !written[e.ID()] {
				out.Others = true
			}
			out.Caller = out.Caller || word == "source.ip"
			out.First = out.First || word == "source.remoteIP"
			out.Token = out.Token || word == "token.principal"
			out.Time = out.Time || word == "now"
		}
	}))
	return out
}

// fieldOf answers the fields and the name of a call that looks at one of them; nil: it is another call.
func fieldOf(c ast.CallExpr) (of, name ast.Expr) {
	args := c.Args()
	switch f := c.FunctionName(); {
	case f == operators.Index && len(args) == 2:
		return args[0], args[1]
	case (f == operators.In || f == operators.OldIn) && len(args) == 2:
		return args[1], args[0]
	case f == "values" && c.IsMemberFunction() && len(args) == 1:
		return c.Target(), args[0]
	}
	return nil, nil
}
