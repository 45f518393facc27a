package shop

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/examples/shop/shoppb"
)

type checkout struct {
	shoppb.UnimplementedCheckoutServer
	http    *http.Client
	payment shoppb.PaymentClient
}

func runCheckout(ctx context.Context, _ Config) error {
	conn, err := dialGRPC("payment")
	if err != nil {
		return err
	}
	defer conn.Close()
	return serveGRPC(ctx, GRPCPort, func(s *grpc.Server) {
		shoppb.RegisterCheckoutServer(s, &checkout{http: client(), payment: shoppb.NewPaymentClient(conn)})
	})
}

// PlaceOrder reads the cart, charges the card and empties the cart.
func (c *checkout) PlaceOrder(ctx context.Context, r *shoppb.PlaceOrderRequest) (*shoppb.PlaceOrderResponse, error) {
	at := "http://cart:" + HTTPPort + "/cart/" + url.PathEscape(r.User)
	b, err := fetch(ctx, c.http, http.MethodGet, at, nil)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	var cart Cart
	if err := json.Unmarshal(b, &cart); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	var total int64
	for _, p := range cart.Products {
		total += p.Cents
	}
	if total == 0 {
		return nil, status.Error(codes.FailedPrecondition, "the cart is empty")
	}
	paid, err := c.payment.Charge(ctx, &shoppb.ChargeRequest{Card: r.Card, Cents: total})
	if err != nil {
		return nil, err
	}
	if _, err := fetch(ctx, c.http, http.MethodDelete, at, nil); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &shoppb.PlaceOrderResponse{Order: rand.Text()[:10], TotalCents: total, Transaction: paid.Transaction}, nil
}
