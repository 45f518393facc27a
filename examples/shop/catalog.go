package shop

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
)

// Product is one thing that the shop sells.
type Product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Cents int64  `json:"cents"`
}

var products = []Product{
	{"tulle-white", "Tulle, white, by the metre", 690},
	{"tulle-ivory", "Tulle, ivory, by the metre", 690},
	{"organza", "Organza, by the metre", 1150},
	{"thread", "Polyester thread, 500 m", 320},
	{"needles", "Needles, set of 12", 475},
	{"scissors", "Tailor's scissors", 3490},
}

func findProduct(id string) (Product, bool) {
	i := slices.IndexFunc(products, func(p Product) bool { return p.ID == id })
	if i < 0 {
		return Product{}, false
	}
	return products[i], true
}

func runCatalog(ctx context.Context, _ Config) error {
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, products) })
	mux.HandleFunc("GET /products/{id}", func(w http.ResponseWriter, r *http.Request) {
		p, ok := findProduct(r.PathValue("id"))
		if !ok {
			http.Error(w, "no such product", http.StatusNotFound)
			return
		}
		writeJSON(w, p)
	})
	return serveHTTP(ctx, HTTPPort, mux)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client has gone: nothing to do
}
