package logformat

import (
	"fmt"
	"strings"
)

// Moment is a part of a time: one of Layout (as package time has it), Text, Fraction and Epoch is meant.
type Moment struct {
	Layout   string
	Text     string
	Fraction int  // digits of the second's fraction, 1 to 9
	Epoch    bool // whole seconds since 1970
}

// layouts are the conversions of strftime that are known.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'j': "002",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'T': "15:04:05", 'R': "15:04", 'F': "2006-01-02",
	'D': "01/02/06", 'z': "-0700", 'Z': "MST", 'c': "Mon Jan _2 15:04:05 2006",
}

var standard = []Moment{{Layout: "2006-01-02T15:04:05.000Z07:00"}}

// parseTime reads the argument of START_TIME: strftime's conversions, and %f or %3f for the fraction; "" is ISO 8601
// with milliseconds. Times are UTC.
func parseTime(format string) ([]Moment, error) {
	if format == "" {
		return standard, nil
	}
	var out []Moment
	for rest := format; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			return append(out, Moment{Text: rest}), nil
		}
		if i > 0 {
			out = append(out, Moment{Text: rest[:i]})
		}
		rest = rest[i+1:]
		switch {
		case rest == "":
			return nil, fmt.Errorf("START_TIME(%s): a %% with nothing after it", format)
		case rest[0] == '%':
			out = append(out, Moment{Text: "%"})
		case rest[0] == 's':
			out = append(out, Moment{Epoch: true})
		case rest[0] == 'f':
			out = append(out, Moment{Fraction: 9})
		case rest[0] >= '1' && rest[0] <= '9' && len(rest) > 1 && rest[1] == 'f':
			out = append(out, Moment{Fraction: int(rest[0] - '0')})
			rest = rest[1:]
		case layouts[rest[0]] != "":
			out = append(out, Moment{Layout: layouts[rest[0]]})
		default:
			return nil, fmt.Errorf("START_TIME(%s): %%%c is no conversion that is known", format, rest[0])
		}
		rest = rest[1:]
	}
	return out, nil
}
