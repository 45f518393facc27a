package v1alpha1

// DirectResponse answers the requests of a rule without a backend. A rule names it as a filter: {type: ExtensionRef,
// extensionRef: {group: tulle.dev, kind: DirectResponse, name: ...}}, and has no backendRefs.
type DirectResponse struct {
	TypeMeta   `json:",inline"`
	ObjectMeta `json:"metadata,omitempty"`
	Spec       DirectResponseSpec `json:"spec,omitempty"`
	Status     UsedStatus         `json:"status,omitempty"`
}

// DirectResponseSpec is the answer.
type DirectResponseSpec struct {
	// Status of the answer, 200 to 599.
	Status int32 `json:"status"`
	// Body of the answer, at most 4096 bytes. Default: none.
	Body string `json:"body,omitempty"`
}

const maxDirectBody = 4096

func (c *check) directResponse(d *DirectResponse) {
	if s := d.Spec.Status; s < 200 || s > 599 {
		c.fail("spec.status", "%d is not the status of an answer: write 200 to 599", s)
	}
	if n := len(d.Spec.Body); n > maxDirectBody {
		c.fail("spec.body", "has %d bytes: at most %d", n, maxDirectBody)
	}
	if s := d.Spec.Status; d.Spec.Body != "" && (s == 204 || s == 205 || s == 304) {
		c.fail("spec.body", "cannot be in an answer with status %d: remove it", s)
	}
}
