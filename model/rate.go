package model

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keys of the entries that tell the control plane, which knows no limits, what to count and how much is allowed.
const (
	LimitKey       = "tulle.limit" // which limit: "reviews.default:9080/HTTPRoute/default/x/0/name"
	RateKeyOfLimit = "tulle.rate"  // see FormatRate
)

// FormatRate writes how much a limit lets through: "100/1s/20".
func FormatRate(requests uint32, window time.Duration, burst uint32) string {
	return fmt.Sprintf("%d/%s/%d", requests, window, burst)
}

// ParseRate reads what FormatRate writes.
func ParseRate(s string) (requests uint32, window time.Duration, burst uint32, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return 0, 0, 0, fmt.Errorf("%q is not requests/window/burst", s)
	}
	n, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("rate %q: %w", s, err)
	}
	if window, err = time.ParseDuration(parts[1]); err != nil || window <= 0 {
		return 0, 0, 0, fmt.Errorf("rate %q: its window is no time", s)
	}
	b, err := strconv.ParseUint(parts[2], 10, 32)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("rate %q: %w", s, err)
	}
	return uint32(n), window, uint32(b), nil
}
