package downstream_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/sim"
)

// opener asks for many bodies, gives none of them a window, and then opens all windows in one frame.
type opener struct {
	c    loop.Conn
	n    int // requests
	heap bytes.Buffer
	got  int
}

func (o *opener) write(frames func(f *http2.Framer)) {
	frames(http2.NewFramer(&o.heap, nil))
	o.c.Write(o.heap.Bytes())
	o.heap.Reset()
}

func (o *opener) Opened() {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	o.heap.WriteString(http2.ClientPreface)
	o.write(func(f *http2.Framer) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		_ = f.WriteWindowUpdate(0, 1<<30)
		for i := range o.n {
			block.Reset()
			for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
				_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		}
	})
}
func (o *opener) Data(p []byte) int { o.got += len(p); return len(p) }
func (o *opener) EOF()              {}
func (o *opener) Writable()         {}
func (o *opener) Closed(error)      {}

// largeProgram answers every request with a body of size bytes.
type largeProgram struct {
	c    loop.Conn
	size int
}

func (g *largeProgram) Opened() {}
func (g *largeProgram) Data(p []byte) int {
	if !bytes.HasSuffix(p, []byte("\r\n\r\n")) {
		return 0
	}
	g.c.Write(append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", g.size), make([]byte, g.size)...))
	return len(p)
}
func (g *largeProgram) EOF()         { g.c.Close() }
func (g *largeProgram) Writable()    {}
func (g *largeProgram) Closed(error) {}

// TestWindowsOpenedInOneFrame: bodies that wait for a window are held by their streams. When one SETTINGS frame opens the
// windows of all of them, the connection takes what its watermark permits, and what is given in one call above it: it
// must not take all of them because nothing is written before the frames at hand are read.
func TestWindowsOpenedInOneFrame(t *testing.T) {
	const streams, size = 60, 60_000
	w := sim.New(sim.Config{Whole: true})
	pl := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
	program := w.Listen(pl, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
		in.Adopt(pl, func(c loop.Conn) loop.Handler { return &largeProgram{c, size} })
	})
	d := to(t, model.Timeouts{}, program.Addr())
	d.clusters[cart] = cluster.New(&model.Cluster{Name: cart, ConnectTimeout: time.Second})
	d.clusters[cart].SetEndpoints(&model.Endpoints{Cluster: cart, Endpoints: []model.Endpoint{{Workload: "a", Address: program.Addr(), Weight: 1}}})
	_, addr := newSimHop(w, "10.0.0.2", exchange.Origin{Direction: record.Outbound, Destination: d, Service: cart}, true)
	cl := w.NewLoop(netip.MustParseAddr("10.0.0.3"))
	client := &opener{n: streams}
	cl.Post(func() { client.c = cl.Dial(loop.Dial{Address: addr}, client) })
	w.Run(time.Second) // every body is as far as it comes
	if client.got >= size {
		t.Fatalf("%d bytes came without a window", client.got)
	}
	cl.Post(func() {
		client.write(func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		})
	})
	most := 0
	for end := w.Now() + time.Minute; client.got < streams*size && w.Now() < end && w.Step(); {
		if l := w.Ran(); l != nil && l != cl && l != pl {
			_, out := l.Largest()
			most = max(most, out)
		}
	}
	if client.got < streams*size {
		t.Fatalf("%d bytes of %d bodies came", client.got, streams)
	}
	if bound := loop.HighWater + loop.ScratchSize + 16<<10; most > bound {
		t.Errorf("the connection held %d bytes, want at most %d", most, bound)
	}
}
