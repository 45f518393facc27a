//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// order is what a part is to ask for. Nothing is repeated that fails.
type order struct {
	URL      string            // http://host:port/path or grpc://host:port/service/method
	Method   string            // default GET
	Body     string            // the message of a call
	Header   map[string]string // "%" in a value becomes the number of the request
	N        int               // how many; default 1
	Workers  int               // how many at a time; default 1
	Pause    time.Duration     // of a worker, after each, on average
	Timeout  time.Duration     // of each; default 10 s. Of calls it is said to the server
	Messages int               // of a call that is a stream; 0: it is unary
}

// tally is how often there was each answer: "200 body", "503 reason", "OK message" or an error.
type tally map[string]int

// of sums up the answers that begin with a text.
func (t tally) of(prefix string) (n int) {
	for answer, k := range t {
		if strings.HasPrefix(answer, prefix) {
			n += k
		}
	}
	return n
}

// play asks for everything.
func (o *order) play(ctx context.Context) tally {
	o.N, o.Workers = max(o.N, 1), max(o.Workers, 1)
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	out := tally{}
	for range o.Workers {
		all.Go(func() {
			a := &asker{order: o}
			defer a.close()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= o.N {
					return
				}
				answer := a.one(ctx, i)
				mu.Lock()
				out[answer]++
				mu.Unlock()
				if o.Pause > 0 {
					<-time.After(rand.N(2 * o.Pause))
				}
			}
		})
	}
	all.Wait()
	return out
}

// asker is one worker, with the connection that it keeps.
type asker struct {
	*order
	conn  net.Conn
	read  *bufio.Reader
	calls *grpc.ClientConn
}

func (a *asker) close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
	if a.calls != nil {
		a.calls.Close()
	}
}

func (a *asker) one(ctx context.Context, i int) string {
	if !strings.HasPrefix(a.URL, "grpc://") {
		answer, err := a.request(i)
		if err != nil {
			a.close()
			return "failed: " + plain(err).Error()
		}
		return answer
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	answer, err := a.callGRPC(ctx, i)
	if err != nil {
		return status.Code(err).String() + " " + status.Convert(err).Message()
	}
	return "OK " + answer
}

// request makes one of HTTP/1.1.
func (a *asker) request(i int) (string, error) {
	u, err := url.Parse(a.URL)
	if err != nil {
		return "", err
	}
	r := &http.Request{Method: a.Method, URL: u, Host: u.Host, Header: http.Header{}}
	for k, v := range a.Header {
		r.Header.Set(k, strings.ReplaceAll(v, "%", fmt.Sprint(i)))
	}
	if a.Body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(a.Body)), int64(len(a.Body))
	}
	if a.conn == nil {
		if a.conn, err = net.DialTimeout("tcp", u.Host, a.Timeout); err != nil {
			return "", err
		}
		a.read = bufio.NewReader(a.conn)
	}
	if err := a.conn.SetDeadline(time.Now().Add(a.Timeout)); err != nil {
		return "", err
	}
	if err := r.Write(a.conn); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(a.read, r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.Close {
		a.close()
	}
	if reason := resp.Header.Get("Tulle-Reason"); reason != "" {
		text = []byte(reason)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(text)), nil
}

// callGRPC makes one call; a stream's answer is that of all its messages, each different one once.
func (a *asker) callGRPC(ctx context.Context, i int) (string, error) {
	host, method, _ := strings.Cut(strings.TrimPrefix(a.URL, "grpc://"), "/")
	if a.calls == nil {
		var err error
		if a.calls, err = grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry()); err != nil {
			return "", err
		}
	}
	for k, v := range a.Header {
		ctx = metadata.AppendToOutgoingContext(ctx, k, strings.ReplaceAll(v, "%", fmt.Sprint(i)))
	}
	in, out := wrapperspb.String(a.Body), &wrapperspb.StringValue{}
	if a.Messages == 0 {
		err := a.calls.Invoke(ctx, "/"+method, in, out)
		return out.GetValue(), err
	}
	s, err := a.calls.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+method)
	if err != nil {
		return "", err
	}
	var answers []string
	for range a.Messages {
		if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // else RecvMsg says why
			return "", err
		}
		if err := s.RecvMsg(out); err != nil {
			return "", err
		}
		if !slices.Contains(answers, out.GetValue()) {
			answers = append(answers, out.GetValue())
		}
	}
	if err := s.CloseSend(); err != nil {
		return "", err
	}
	if err := s.RecvMsg(out); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("the stream did not end: %w", err)
	}
	return strings.Join(answers, ", "), nil
}
