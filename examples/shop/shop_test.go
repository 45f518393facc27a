package shop

import (
	"bufio"
	"fmt"
	"net"
	"testing"
)

func TestLuhn(t *testing.T) {
	for card, want := range map[string]bool{
		"4111111111111111": true, "4111111111111112": false, "": false, "41111111111111x1": false, "0": false,
	} {
		if got := luhn(card); got != want {
			t.Errorf("%q: %v", card, got)
		}
	}
}

// TestKV speaks the store's protocol over a connection.
func TestKV(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	done := make(chan struct{})
	go func() { (&kvStore{values: map[string]string{}}).serve(b); close(done) }()
	in := bufio.NewReader(a)
	for _, c := range [][2]string{{"GET x", "+"}, {"SET x a b", "+ok"}, {"GET x", "+a b"}, {"DEL x", "+ok"}, {"GET x", "+"}, {"HELLO", "-unknown command"}} {
		if _, err := fmt.Fprintln(a, c[0]); err != nil {
			t.Fatal(err)
		}
		got, err := in.ReadString('\n')
		if err != nil || got != c[1]+"\n" {
			t.Errorf("%s: got %q, %v, want %q", c[0], got, err, c[1])
		}
	}
	a.Close()
	<-done
}
