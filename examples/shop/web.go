package shop

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"

	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/examples/shop/shoppb"
)

// web is the shop's front: pages for a browser, made from what the other services answer.
type web struct {
	http     *http.Client
	checkout shoppb.CheckoutClient
	page     *template.Template
}

const webPages = `{{define "home"}}<!doctype html><title>The shop</title><h1>The shop</h1><ul>
{{range .}}<li><a href="/product/{{.ID}}">{{.Name}}</a> {{printf "%d.%02d" .Euros .Rest}}</li>
{{end}}</ul>{{end}}
{{define "product"}}<!doctype html><title>{{.Name}}</title><h1>{{.Name}}</h1>
<p>Reviews ({{.Reviews.Version}}):</p><ul>{{range .Reviews.Texts}}<li>{{.}}</li>{{end}}</ul>
{{with .Reviews.Stars}}<p>Stars: {{.}}</p>{{end}}{{end}}`

type priced struct {
	Product
	Euros, Rest int64
}

func runWeb(ctx context.Context, _ Config) error {
	conn, err := dialGRPC("checkout")
	if err != nil {
		return err
	}
	defer conn.Close()
	page, err := template.New("").Parse(webPages)
	if err != nil {
		return err
	}
	s := &web{http: client(), checkout: shoppb.NewCheckoutClient(conn), page: page}
	mux := http.NewServeMux()
	healthy(mux)
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /product/{id}", s.product)
	mux.HandleFunc("GET /cart/{user}", s.cart)
	mux.HandleFunc("POST /cart/{user}/{product}", s.cart)
	mux.HandleFunc("POST /checkout/{user}", s.order)
	return serveHTTP(ctx, HTTPPort, mux)
}

func (s *web) home(w http.ResponseWriter, r *http.Request) {
	b, err := fetch(r.Context(), s.http, http.MethodGet, "http://catalog:"+HTTPPort+"/products", nil)
	var list []Product
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	show := make([]priced, 0, len(list))
	for _, p := range list {
		show = append(show, priced{p, p.Cents / 100, p.Cents % 100})
	}
	s.render(w, "home", show)
}

func (s *web) product(w http.ResponseWriter, r *http.Request) {
	id := url.PathEscape(r.PathValue("id"))
	var data struct {
		Product
		Reviews Reviews
	}
	for at, into := range map[string]any{
		"http://catalog:" + HTTPPort + "/products/" + id: &data.Product,
		"http://reviews:" + HTTPPort + "/reviews/" + id:  &data.Reviews,
	} {
		b, err := fetch(r.Context(), s.http, http.MethodGet, at, nil)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	s.render(w, "product", data)
}

// cart passes a cart request on as it came.
func (s *web) cart(w http.ResponseWriter, r *http.Request) {
	b, err := fetch(r.Context(), s.http, r.Method, "http://cart:"+HTTPPort+r.URL.EscapedPath(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the browser has gone: nothing to do
}

func (s *web) order(w http.ResponseWriter, r *http.Request) {
	order, err := s.checkout.PlaceOrder(r.Context(), &shoppb.PlaceOrderRequest{User: r.PathValue("user"), Card: "4111111111111111"})
	if err != nil {
		http.Error(w, fmt.Sprintf("order refused: %s", status.Convert(err).Message()), http.StatusBadGateway)
		return
	}
	writeJSON(w, map[string]any{"order": order.Order, "total_cents": order.TotalCents})
}

func (s *web) render(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := s.page.ExecuteTemplate(w, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
