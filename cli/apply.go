package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newApplyCommand() *cobra.Command {
	var req httpapi.ApplyRequest
	var names []string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Store the resources of files: all of them, or none",
		Long: `Store the resources of YAML or JSON files (a folder stands for the files in it, - for standard input). When anything
in them is wrong, every error is printed with its file and line, and nothing is stored. Where a resource wants the same
requests as another one, a request that both would take is printed, which of them gets it, and what to do about it. What a
resource refers to in vain (a backend in another namespace without a ReferenceGrant, a port that a route cannot decide about, a
fault that no route uses) is a warning with its line: it may come later.

With --dry-run nothing is stored; what proxies would be told, and which ones, is printed.`,
		Args: cobra.NoArgs,
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runApply(cmd, *o, names, req, wait) }
	fileFlag(cmd, &names)
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "print what would change and whom it concerns, but store nothing")
	cmd.Flags().BoolVar(&req.Strict, "strict", false, "store nothing if a resource contradicts another one and only age, name or kind decides")
	cmd.Flags().BoolVar(&req.AllowUnresolved, "allow-unresolved", false, "store also what refers to Services, ports or filters that nobody knows yet, with a warning")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait at most this long until every proxy enforces it")
	return cmd
}

func newDeleteCommand() *cobra.Command {
	req := httpapi.ApplyRequest{Delete: true}
	var names []string
	var namespace string
	cmd := &cobra.Command{
		Use:   "delete (-f FILE | KIND NAME... | KIND/NAME...)",
		Short: "Delete resources, named by files or by kind and name",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(names) > 0 && len(args) > 0:
				return errors.New("name the resources by -f or by kind and name, not both")
			case len(names) > 0:
				return runApply(cmd, "", names, req, 0)
			}
			list, err := named(args, namespace)
			if err != nil {
				return err
			}
			c, err := clientOf(cmd)
			if err != nil {
				return err
			}
			return deleteNamed(cmd, c, list, req.DryRun)
		},
	}
	fileFlag(cmd, &names)
	namespaceFlag(cmd, &namespace)
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "check and print, but delete nothing")
	return cmd
}

// named answers the paths of objects that are named "KIND NAME...", or "KIND/NAME" and "KIND/NAMESPACE/NAME", as they are printed.
func named(args []string, namespace string) (paths []string, err error) {
	if len(args) >= 2 && !strings.Contains(args[0], "/") {
		for _, name := range args[1:] {
			paths = append(paths, objectPath(args[0], namespace, name))
		}
		return paths, nil
	}
	for _, arg := range args {
		switch parts := strings.Split(arg, "/"); len(parts) {
		case 2:
			paths = append(paths, objectPath(parts[0], namespace, parts[1]))
		case 3:
			paths = append(paths, objectPath(parts[0], parts[1], parts[2]))
		default:
			return nil, fmt.Errorf("%q names no object: write 'httproute cart' or httproute/cart", arg)
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("nothing to delete: write -f FILE, or a kind and a name such as 'httproute cart'")
	}
	return paths, nil
}

// dryNote is said where nothing was done.
const dryNote = " (dry run, nothing was stored)"

func deleteNamed(cmd *cobra.Command, c *client, paths []string, dry bool) error {
	query, note := "", ""
	if dry {
		query, note = "?dryRun=true", dryNote
	}
	for _, path := range paths {
		var result httpapi.ApplyResult
		if err := c.call(cmd.Context(), http.MethodDelete, path+query, nil, &result); err != nil {
			return err
		}
		printApplied(cmd, result, note)
		printWarnings(cmd.ErrOrStderr(), &result)
	}
	return nil
}

func fileFlag(cmd *cobra.Command, names *[]string) {
	cmd.Flags().StringArrayVarP(names, "filename", "f", nil, "`file` or folder, or - for standard input; repeatable")
}

// readFiles reads the files that the user named.
func readFiles(cmd *cobra.Command, names []string) (out []httpapi.File, err error) {
	if len(names) == 0 {
		return nil, errors.New("no file given: write -f FILE, or -f - for standard input")
	}
	for _, name := range names {
		list, err := filesOf(name)
		if err != nil {
			return nil, err
		}
		for _, path := range list {
			f, err := readFile(cmd, path)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func runApply(cmd *cobra.Command, o output, names []string, req httpapi.ApplyRequest, wait time.Duration) (err error) {
	if req.Files, err = readFiles(cmd, names); err != nil {
		return err
	}
	c, err := clientOf(cmd)
	if err != nil {
		return err
	}
	req.Diff = req.DryRun && o == "" // for printPlanned
	var result httpapi.ApplyResult
	if err := c.call(cmd.Context(), http.MethodPost, "/v1/apply", req, &result); err != nil {
		return err
	}
	note := ""
	if req.DryRun {
		note = dryNote
	}
	if o != "" {
		if err := o.print(cmd, result, nil); err != nil {
			return err
		}
	} else {
		printApplied(cmd, result, note)
		if req.DryRun && !req.Delete {
			printPlanned(cmd.OutOrStdout(), result.Objects)
		}
		printChanges(cmd.OutOrStdout(), result.Changes)
		printConflicts(cmd.ErrOrStderr(), result.Conflicts)
		printWarnings(cmd.ErrOrStderr(), &result)
	}
	if wait > 0 && !req.DryRun {
		return waitFor(cmd, c, result.Revision, wait)
	}
	return nil
}

func printApplied(cmd *cobra.Command, result httpapi.ApplyResult, note string) {
	for _, o := range result.Objects {
		where := ""
		if o.Namespace != "" && o.Namespace != "default" {
			where = " in " + o.Namespace
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s/%s %s%s%s\n", strings.ToLower(o.Kind), o.Name, o.Action, where, note)
	}
}

func none(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// printConflicts says what wants the same requests: a warning where only age, name or kind decides, else a note.
func printConflicts(w io.Writer, list []httpapi.Contradiction) {
	for i := range list {
		word := "note"
		if list[i].Warning() {
			word = "warning"
		}
		fmt.Fprintf(w, "%s: %s\n", word, &list[i])
	}
}

// printWarnings says what leads nowhere, of the objects and of others because of them.
func printWarnings(w io.Writer, r *httpapi.ApplyResult) {
	for _, e := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", e)
	}
	for i := range r.Broken {
		fmt.Fprintf(w, "warning: %s\n", &r.Broken[i])
	}
}

// filesOf answers the files that a name stands for, sorted.
func filesOf(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	var list []string
	err := filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		switch ext := strings.ToLower(filepath.Ext(path)); {
		case err != nil || d.IsDir():
			return err
		case path == name || ext == ".yaml" || ext == ".yml" || ext == ".json":
			list = append(list, path)
		}
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("there is no .yaml, .yml or .json file in %s", name)
	}
	return list, err
}
