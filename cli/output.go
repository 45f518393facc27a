package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// output is the -o flag of a listing.
type output string

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command) *output {
	o := new(output)
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "how to print: json or yaml instead of a table")
	return o
}

// print writes v as JSON or YAML, or calls table.
func (o output) print(cmd *cobra.Command, v any, table func(w io.Writer)) error {
	out := cmd.OutOrStdout()
	switch o {
	case "":
		w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		table(w)
		return w.Flush()
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		return writeYAML(out, v)
	}
	return fmt.Errorf("-o %s: write json or yaml", o)
}

// writeYAML writes v with its JSON names, in the order of its JSON.
func writeYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		return err
	}
	plainStyle(&n)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	return e.Close()
}

// plainStyle takes the braces and quotes of JSON away; the encoder puts quotes where they are needed.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plainStyle(c)
	}
}

// row writes one line of a table; an empty cell is "-".
func row(w io.Writer, cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = fmt.Sprint(c); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

// age answers "3s", "5m", "2h" or "4d".
func age(since, now time.Time) string {
	d := now.Sub(since)
	switch {
	case since.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
