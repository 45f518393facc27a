package compile

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// A text that several regular expressions match at once is found by walking their automata together, breadth first: so it
// is the shortest there is, and where there is none the walk says so. The walk is bounded; beyond the bounds it cannot tell.

// Bounds of one walk.
const (
	maxProgram = 2000    // instructions of one expression
	maxStates  = 4096    // of the product
	maxWork    = 1 << 20 // instructions looked at
	maxText    = 200     // bytes of what is found
)

// maxEffort is the work of all walks of one search; it takes about a second. What is left then cannot be told.
const maxEffort = 1 << 26

// finding is the answer of a walk.
type finding uint8

const (
	findNone finding = iota // surely there is no such text
	findOne
	findUnknown // out of bounds
)

// effort is what a search may still spend.
type effort struct{ left int }

// common answers a text over an alphabet that all expressions (RE2) match from end to end.
func (e *effort) common(alphabet string, exprs ...string) (string, finding) {
	w := product{alphabet: alphabet, seen: map[string]bool{}, most: min(maxWork, e.left)}
	defer func() { e.left -= w.work }()
	for _, expr := range exprs {
		re, err := syntax.Parse(expr, syntax.Perl)
		if err != nil || sizeOf(re) > maxProgram {
			return "", findUnknown
		}
		p, err := syntax.Compile(re.Simplify())
		if err != nil || len(p.Inst) > maxProgram {
			return "", findUnknown
		}
		w.progs = append(w.progs, p)
		w.marks = append(w.marks, make([]uint32, len(p.Inst)))
	}
	return w.walk()
}

// sizeOf answers about how many instructions an expression becomes: repetitions are written out. It is asked before they are.
func sizeOf(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n = min(n+sizeOf(sub), maxProgram+1)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1) // less than 2^31: at most 1000 times
	}
	return min(n, maxProgram+1)
}

// product is the automata of several expressions, walked together.
type product struct {
	alphabet string
	progs    []*syntax.Prog
	marks    [][]uint32 // per program and instruction: the walk of closure that saw it last
	mark     uint32
	work     int
	most     int // of work
	seen     map[string]bool
	queue    []position
}

// position is where all automata are after a text. The sets are before the empty transitions, which depend on what follows.
type position struct {
	sets [][]uint32
	prev rune // last of the text, -1 at its start
	text string
}

func (w *product) walk() (string, finding) {
	first := position{prev: -1}
	for _, p := range w.progs {
		first.sets = append(first.sets, []uint32{uint32(p.Start)})
	}
	w.queue = []position{first}
	for i := 0; i < len(w.queue); i++ {
		at := w.queue[i]
		if w.accepts(&at) {
			return at.text, findOne
		}
		if len(at.text) == maxText {
			return "", findUnknown
		}
		for _, c := range w.alphabet {
			if next, ok := w.step(&at, c); ok {
				w.queue = append(w.queue, next)
			}
			if len(w.queue) > maxStates || w.work > w.most {
				return "", findUnknown
			}
		}
		w.queue[i].sets = nil
	}
	return "", findNone
}

// accepts reports whether the text may end here for all.
func (w *product) accepts(at *position) bool {
	flags := syntax.EmptyOpContext(at.prev, -1)
	for i, p := range w.progs {
		match := false
		w.closure(i, at.sets[i], flags, func(pc uint32) { match = match || p.Inst[pc].Op == syntax.InstMatch })
		if !match {
			return false
		}
	}
	return true
}

// step answers where one more character leads, false if nowhere or where the walk has been.
func (w *product) step(at *position, c rune) (position, bool) {
	next := position{prev: c, text: at.text + string(c)}
	flags := syntax.EmptyOpContext(at.prev, c)
	key := []byte{kindOf(c)}
	for i, p := range w.progs {
		var set []uint32
		w.closure(i, at.sets[i], flags, func(pc uint32) {
			in := &p.Inst[pc]
			switch in.Op {
			case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
				if in.MatchRune(c) {
					set = append(set, in.Out)
				}
			}
		})
		if len(set) == 0 {
			return next, false
		}
		slices.Sort(set)
		set = slices.Compact(set)
		next.sets = append(next.sets, set)
		for _, pc := range set {
			key = append(key, byte(pc>>8), byte(pc))
		}
		key = append(key, 0xff, 0xff)
	}
	if w.seen[string(key)] {
		return next, false
	}
	w.seen[string(key)] = true
	return next, true
}

// kindOf is what the assertions of RE2 can tell of a character that came before.
func kindOf(c rune) byte {
	switch {
	case c == '\n':
		return 1
	case syntax.IsWordChar(c):
		return 2
	}
	return 0
}

// closure visits what is reached from set without reading anything.
func (w *product) closure(prog int, set []uint32, flags syntax.EmptyOp, visit func(pc uint32)) {
	w.mark++
	p, marks := w.progs[prog], w.marks[prog]
	stack := slices.Clone(set)
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if marks[pc] == w.mark {
			continue
		}
		marks[pc] = w.mark
		w.work++
		switch in := &p.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				stack = append(stack, in.Out)
			}
		case syntax.InstFail:
		default:
			visit(pc)
		}
	}
}

// Alphabets, what people write first in front, and what a text has to look like.
const (
	letters      = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	pathAlphabet = letters + "/-._~!$&'()*+,;=:@%"
	pathForm     = `/(?:[a-zA-Z0-9/\-._~!$&'()*+,;=:@]|%[0-9A-F][0-9A-F])*` // RFC 3986 section 3.3
	textForm     = `(?:[!-~](?:[ -~]*[!-~])?)?`                             // RFC 9110 section 5.5, without what is obsolete
)

// textAlphabet is every printable character.
func textAlphabet() string {
	var b strings.Builder
	b.WriteString(letters)
	for c := byte(' '); c < 0x7f; c++ {
		if strings.IndexByte(letters, c) < 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}
