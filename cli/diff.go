package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

// exitDiffers and exitTrouble are those of kubectl diff: 1 means that there is a difference, more that something is wrong.
const (
	exitDiffers exitCode = 1
	exitTrouble exitCode = 2
)

func newDiffCommand() *cobra.Command {
	req := httpapi.ApplyRequest{DryRun: true, Diff: true}
	var names []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Print how files differ from what is stored",
		Long: `Print, for every resource of the files, the lines that 'tulle apply' would change, with defaults written out on both sides; at the end, as comments, what proxies would be told, and which.
Exits with 0 if there is no difference, with 1 if there is one, and with 2 if something is wrong. Nothing is stored.`,
		Args: cobra.NoArgs,
	}
	fileFlag(cmd, &names)
	o := outputFlag(cmd)
	cmd.Flags().BoolVar(&req.AllowUnresolved, "allow-unresolved", false, "take routes to Services that nobody knows yet")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		differs, err := runDiff(cmd, *o, names, req)
		switch {
		case err != nil:
			fmt.Fprint(cmd.ErrOrStderr(), errorText(cmd.CommandPath(), err))
			return exitTrouble
		case differs:
			return exitDiffers
		}
		return nil
	}
	return cmd
}

func runDiff(cmd *cobra.Command, o output, names []string, req httpapi.ApplyRequest) (differs bool, err error) {
	if req.Files, err = readFiles(cmd, names); err != nil {
		return false, err
	}
	c, err := clientOf(cmd)
	if err != nil {
		return false, err
	}
	var result httpapi.ApplyResult
	if err := c.call(cmd.Context(), http.MethodPost, "/v1/apply", req, &result); err != nil {
		return false, err
	}
	var changed []httpapi.Applied
	for _, a := range result.Objects {
		if a.Action != "unchanged" {
			changed = append(changed, a)
		}
	}
	if o != "" {
		return len(changed) > 0, o.print(cmd, append([]httpapi.Applied{}, changed...), nil)
	}
	for _, a := range changed {
		if err := printDiff(cmd.OutOrStdout(), &a); err != nil {
			return false, err
		}
	}
	printConcerned(cmd.OutOrStdout(), result.Changes)
	printConflicts(cmd.ErrOrStderr(), result.Conflicts)
	printWarnings(cmd.ErrOrStderr(), &result)
	return len(changed) > 0, nil
}

// printDiff prints one object's difference in the form that diff -u has.
func printDiff(w io.Writer, a *httpapi.Applied) error {
	before, err := yamlLines(a.Before)
	if err != nil {
		return err
	}
	after, err := yamlLines(a.After)
	if err != nil {
		return err
	}
	name := strings.ToLower(a.Kind) + "/" + a.Name
	if a.Namespace != "" {
		name = a.Namespace + "/" + name
	}
	fmt.Fprintf(w, "--- stored/%s\n+++ file/%s\n", name, name)
	for _, line := range hunks(edits(before, after)) {
		fmt.Fprintln(w, line)
	}
	return nil
}

func yamlLines(text json.RawMessage) ([]string, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	var b bytes.Buffer
	if err := writeYAML(&b, text); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n"), nil
}

// maxLines bounds what is compared line by line; of longer objects all lines are replaced.
const maxLines = 4000

// edits answers the lines of both, each with ' ', '-' or '+' in front: the fewest that are not common (the longest common
// subsequence).
func edits(a, b []string) (out []string) {
	if len(a) > maxLines || len(b) > maxLines {
		return append(mark("-", a), mark("+", b)...)
	}
	most := make([][]int32, len(a)+1) // of common lines, from i and j on
	for i := range most {
		most[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if most[i][j] = max(most[i+1][j], most[i][j+1]); a[i] == b[j] {
				most[i][j] = most[i+1][j+1] + 1
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			out, i, j = append(out, " "+a[i]), i+1, j+1
		case most[i+1][j] >= most[i][j+1]:
			out, i = append(out, "-"+a[i]), i+1
		default:
			out, j = append(out, "+"+b[j]), j+1
		}
	}
	return append(append(out, mark("-", a[i:])...), mark("+", b[j:])...)
}

func mark(sign string, lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, sign+l)
	}
	return out
}

// around is how many common lines are shown on both sides of a change.
const around = 3

// hunks leaves out the common lines that are far from any change.
func hunks(all []string) (out []string) {
	near := make([]bool, len(all))
	for i, l := range all {
		if l[0] != ' ' {
			for k := max(0, i-around); k <= min(len(all)-1, i+around); k++ {
				near[k] = true
			}
		}
	}
	old, now, skipped := 0, 0, true
	for i, l := range all {
		if !near[i] {
			skipped = true
		} else {
			if skipped {
				end := len(all)
				if k := slices.Index(near[i:], false); k >= 0 {
					end = i + k
				}
				was, is := count(all[i:end])
				out = append(out, fmt.Sprintf("@@ -%d,%d +%d,%d @@", start(old, was), was, start(now, is), is))
				skipped = false
			}
			out = append(out, l)
		}
		was, is := count(all[i : i+1])
		old, now = old+was, now+is
	}
	return out
}

// start is the number of a hunk's first line; of an empty one it is the line before.
func start(before, lines int) int {
	if lines == 0 {
		return before
	}
	return before + 1
}

// count answers how many lines are in the old and in the new text.
func count(lines []string) (was, is int) {
	for _, l := range lines {
		if l[0] != '+' {
			was++
		}
		if l[0] != '-' {
			is++
		}
	}
	return was, is
}
