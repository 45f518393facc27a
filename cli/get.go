package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

func newGetCommand() *cobra.Command {
	var namespace string
	var all bool
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Print stored resources, with what became of them",
		Args:  cobra.RangeArgs(1, 2),
	}
	o := outputFlag(cmd)
	namespaceFlag(cmd, &namespace)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "list the resources of every namespace")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := clientOf(cmd)
		if err != nil {
			return err
		}
		kind, _ := v1alpha1.FindKind(args[0]) // what is not known is refused by the control plane
		if len(args) == 2 {
			var object json.RawMessage
			if err := c.call(cmd.Context(), http.MethodGet, objectPath(args[0], namespace, args[1]), nil, &object); err != nil {
				return err
			}
			return o.print(cmd, object, func(w io.Writer) { objectTable(w, kind, []json.RawMessage{object}, false) })
		}
		path := "/v1/objects/" + url.PathEscape(args[0])
		if !all {
			path += "?namespace=" + url.QueryEscape(namespace)
		}
		var list httpapi.ObjectList
		if err := c.call(cmd.Context(), http.MethodGet, path, nil, &list); err != nil {
			return err
		}
		shown := map[string]any{"apiVersion": "v1", "kind": "List", "items": list.Items}
		return o.print(cmd, shown, func(w io.Writer) { objectTable(w, kind, list.Items, all) })
	}
	return cmd
}

func namespaceFlag(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", v1alpha1.DefaultNamespace, "`namespace` of the resources")
}

// objectPath is the API's path of one object.
func objectPath(kind, namespace, name string) string {
	return "/v1/objects/" + url.PathEscape(kind) + "/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
}

func objectTable(w io.Writer, kind v1alpha1.Kind, items []json.RawMessage, namespaces bool) {
	head, cells := columns(kind.Name)
	if namespaces {
		head = append([]any{"NAMESPACE"}, head...)
	}
	row(w, append(head, "AGE")...)
	for _, text := range items {
		object := kind.New()
		if json.Unmarshal(text, object) != nil {
			continue
		}
		line := cells(object)
		if namespaces {
			line = append([]any{object.GetNamespace()}, line...)
		}
		row(w, append(line, age(v1alpha1.Meta(object).CreationTimestamp.Time, time.Now()))...)
	}
}
