package main

import (
	"bytes"
	"fmt"
	"html"
)

// series is one group of bars, one value per subject; 0: none.
type series struct {
	label  string
	values []float64
}

var colours = []string{"#1b6ef3", "#8a8f98", "#b9bec6", "#d98e3f", "#5f9e6e"}

// bars draws groups of vertical bars as SVG. Bars over 4 are cut and say their value; the line is 1.
func bars(title string, names []string, groups []series) []byte {
	const (
		left, top, height, bar, gap, most = 48, 64, 220, 22, 26, 4.0
	)
	group := bar*len(names) + gap
	width := left + group*len(groups) + gap
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, top+height+40)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="20" font-size="14">%s</text>`+"\n", left, html.EscapeString(title))
	for i, n := range names {
		x := left + i*110
		fmt.Fprintf(&b, `<rect x="%d" y="32" width="10" height="10" fill="%s"/><text x="%d" y="41">%s</text>`+"\n", x, colours[i%len(colours)], x+14, html.EscapeString(n))
	}
	y := func(v float64) int { return top + height - int(min(v, most)/most*height) }
	for v := 0.0; v <= most; v++ {
		stroke := "#e3e6ea"
		if v == 1 {
			stroke = "#555"
		}
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="%s"/><text x="%d" y="%d" text-anchor="end">%.0f×</text>`+"\n", left, width, y(v), y(v), stroke, left-6, y(v)+4, v)
	}
	for g, s := range groups {
		x := left + gap/2 + g*group
		for i, v := range s.values {
			if v == 0 {
				continue
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, x+i*bar, y(v), bar-3, top+height-y(v), colours[i%len(colours)])
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" font-size="9">%.2f</text>`+"\n", x+i*bar+bar/2-1, y(v)-3, v)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", x+group/2-gap/2, top+height+18, html.EscapeString(s.label))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
