package outage

import (
	"fmt"
	"strings"
	"time"
)

// Plot draws both results of every service as SVG: on the left what the service is asked while it is down, on the right
// who was caught and is answered after it is back.
func Plot(services []Service, fixed, learned []Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#333">`+"\n",
		2*(wide+gap)+gap, len(services)*(high+2*gap)+gap)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&b, `<text x="%d" y="20" fill="%s">exponential, 25 ms to 250 ms</text><text x="%d" y="20" fill="%s">learned</text>`+"\n", gap, colors[0], gap+200, colors[1])
	for i, s := range services {
		y := gap + 20 + i*(high+2*gap)
		both := [2]Result{fixed[i], learned[i]}
		var asked, back [2][]float64
		for k, r := range both {
			for j := range Steps {
				asked[k] = append(asked[k], float64(r.Asked[j])/counted/r.Step.Seconds())
				back[k] = append(back[k], 100*float64(r.Back[j])/float64(max(r.Caught, 1)))
			}
		}
		end := time.Duration(Steps) * both[0].Step
		panel(&b, gap, y, s.Name+": attempts a second while it is down", end, asked)
		panel(&b, 2*gap+wide, y, "answered after it is back, % of the caught", end, back)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

const (
	wide, high = 440, 150
	gap        = 40
)

var colors = [2]string{"#c33", "#26b"}

// panel draws two curves over time.
func panel(b *strings.Builder, x, y int, title string, end time.Duration, curves [2][]float64) {
	most := 1.0
	for _, c := range curves {
		for _, v := range c {
			most = max(most, v)
		}
	}
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text><path d="M%d %dv%dh%d" fill="none" stroke="#999"/>`+"\n", x, y-8, title, x, y, high, wide)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%.3g</text><text x="%d" y="%d" text-anchor="end">%s</text><text x="%d" y="%d">0</text>`+"\n",
		x-4, y+10, most, x+wide, y+high+15, end, x, y+high+15)
	for k, c := range curves {
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colors[k])
		for j, v := range c {
			fmt.Fprintf(b, "%.1f,%.1f ", float64(x)+float64(j*wide)/float64(len(c)-1), float64(y)+high*(1-v/most))
		}
		b.WriteString("\"/>\n")
	}
}
