package shop

import (
	"context"
	"crypto/rand"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/examples/shop/shoppb"
)

type payment struct {
	shoppb.UnimplementedPaymentServer
}

func runPayment(ctx context.Context, _ Config) error {
	return serveGRPC(ctx, GRPCPort, func(s *grpc.Server) { shoppb.RegisterPaymentServer(s, payment{}) })
}

// Charge takes any card whose check digit is right.
func (payment) Charge(_ context.Context, r *shoppb.ChargeRequest) (*shoppb.ChargeResponse, error) {
	if r.Cents <= 0 {
		return nil, status.Error(codes.InvalidArgument, "nothing to charge")
	}
	if !luhn(r.Card) {
		return nil, status.Error(codes.InvalidArgument, "the card's check digit is wrong")
	}
	return &shoppb.ChargeResponse{Transaction: rand.Text()[:12]}, nil
}

// luhn checks a card number's last digit (ISO/IEC 7812-1 annex B).
func luhn(card string) bool {
	sum, double := 0, false
	for i := len(card) - 1; i >= 0; i-- {
		d := int(card[i]) - '0'
		if d < 0 || d > 9 {
			return false
		}
		if double {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum, double = sum+d, !double
	}
	return len(card) >= 12 && sum%10 == 0
}
