package shop

import (
	"context"
	"net/http"
)

// Reviews are what customers say of one product. Stars are new in v2.
type Reviews struct {
	Product string   `json:"product"`
	Version string   `json:"version"`
	Texts   []string `json:"texts"`
	Stars   []int    `json:"stars,omitempty"`
}

func runReviews(ctx context.Context, cfg Config) error {
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		p, ok := findProduct(r.PathValue("id"))
		if !ok {
			http.Error(w, "no such product", http.StatusNotFound)
			return
		}
		out := Reviews{Product: p.ID, Version: cfg.Version, Texts: []string{"Fine and strong.", "As described: " + p.Name + "."}}
		if cfg.Version != "v1" {
			out.Stars = []int{5, 4}
		}
		writeJSON(w, out)
	})
	return serveHTTP(ctx, HTTPPort, mux)
}
