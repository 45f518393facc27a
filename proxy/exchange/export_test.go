package exchange

// NormalPath is what normal makes of a path, for tests.
func NormalPath(p []byte) ([]byte, bool) { return normal(append([]byte(nil), p...)) }

// UnescapeSlashes and MergeSlashes likewise.
func UnescapeSlashes(p []byte) []byte { return unescapeSlashes(append([]byte(nil), p...)) }

// MergeSlashes is for tests.
func MergeSlashes(p []byte) []byte { return mergeSlashes(append([]byte(nil), p...)) }

// WithoutPort is for tests.
func WithoutPort(a []byte) []byte { return withoutPort(a) }
