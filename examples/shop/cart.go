package shop

import (
	"context"
	"net/http"
	"strings"
)

// Cart is what one user wants to buy.
type Cart struct {
	User     string    `json:"user"`
	Products []Product `json:"products"`
}

// maxCart is how many products fit into one cart.
const maxCart = 20

func runCart(ctx context.Context, _ Config) error {
	kv := newKVClient()
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /cart/{user}", func(w http.ResponseWriter, r *http.Request) {
		v, err := kv.do(r.Context(), "GET cart:"+r.PathValue("user"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		cart := Cart{User: r.PathValue("user"), Products: []Product{}}
		for _, id := range strings.Fields(v) {
			if p, ok := findProduct(id); ok {
				cart.Products = append(cart.Products, p)
			}
		}
		writeJSON(w, cart)
	})
	mux.HandleFunc("POST /cart/{user}/{product}", func(w http.ResponseWriter, r *http.Request) {
		user, id := r.PathValue("user"), r.PathValue("product")
		if _, ok := findProduct(id); !ok || strings.ContainsAny(user, " \n") {
			http.Error(w, "no such product or user", http.StatusNotFound)
			return
		}
		v, err := kv.do(r.Context(), "GET cart:"+user)
		ids := strings.Fields(v)
		if err == nil && len(ids) < maxCart {
			_, err = kv.do(r.Context(), "SET cart:"+user+" "+strings.Join(append(ids, id), " "))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		writeJSON(w, map[string]int{"products": len(ids) + 1})
	})
	mux.HandleFunc("DELETE /cart/{user}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := kv.do(r.Context(), "DEL cart:"+r.PathValue("user")); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		writeJSON(w, map[string]bool{"empty": true})
	})
	return serveHTTP(ctx, HTTPPort, mux)
}
