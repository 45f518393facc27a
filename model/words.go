package model

import "strings"

// What listings and comparisons call the values of the kinds above: the words that users write where they write any.

// String answers the word of TrafficPolicy.
func (p LBPolicy) String() string {
	return word(int(p), "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev", "PeakEWMA", "LeastUtilized")
}

// String answers the word of Gateway API.
func (k PathKind) String() string { return word(int(k), "PathPrefix", "Exact", "RegularExpression") }

// String answers the word of Gateway API where it has one.
func (k PathChangeKind) String() string {
	return word(int(k), "keep", "ReplaceFullPath", "ReplacePrefixMatch", "pattern")
}

// String answers the word of TrafficPolicy.
func (m LocalityMode) String() string { return word(int(m), "Ignore", "Prefer", "Weighted") }

// String answers the word of TrafficPolicy.
func (c Class) String() string { return word(int(c), "default", "critical", "batch") }

// String answers "header", "cookie", "source" or "query".
func (k HashKind) String() string { return word(int(k), "header", "cookie", "source", "query", "path") }

// String answers what requests are told apart by.
func (k RateKeyKind) String() string {
	return word(int(k), "caller", "address", "header", "path", "method", "fixed")
}

// String answers "http", "tcp" or "grpc".
func (k HealthCheckKind) String() string { return word(int(k), "http", "tcp", "grpc") }

// String answers the words of TrafficPolicy, with commas between.
func (on RetryOn) String() string {
	var out []string
	for i, w := range [...]string{"untouched", "reset", "timeout", "gateway", "5xx", "conflict", "statuses", "grpc"} {
		if on>>i&1 != 0 {
			out = append(out, w)
		}
	}
	return strings.Join(out, ",")
}

func word(i int, words ...string) string {
	if i < len(words) {
		return words[i]
	}
	return "unknown"
}
