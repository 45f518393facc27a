package http2_test

import (
	"bytes"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/proxy/http2"
	"github.com/tulle-mesh/tulle/proxy/message"
)

type quiet struct{}

func (quiet) Head(*http2.Stream, *message.Head, bool) {}
func (quiet) Data(*http2.Stream, []byte, bool)        {}
func (quiet) Trailers(*http2.Stream, *message.Head)   {}
func (quiet) Reset(*http2.Stream, http2.ErrCode)      {}
func (quiet) Writable(*http2.Stream)                  {}
func (quiet) GoAway(uint32, http2.ErrCode)            {}
func (quiet) Settings()                               {}

// TestManySettings: each SETTINGS_INITIAL_WINDOW_SIZE costs a look at every stream, and one frame can have thousands of them.
func TestManySettings(t *testing.T) {
	c := http2.New(http2.Config{Server: true, MaxConcurrent: 1024, Events: quiet{}})
	var in bytes.Buffer
	in.WriteString(xhttp2.ClientPreface)
	fr := xhttp2.NewFramer(&in, nil)
	_ = fr.WriteSettings()
	for i := range 1024 {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: []byte{0x82, 0x86, 0x84, 0x41, 1, 'a'}, EndHeaders: true, EndStream: true})
	}
	if n, err := c.Feed(in.Bytes()); err != nil || n != in.Len() || c.Streams() != 1024 {
		t.Fatal(n, err, c.Streams())
	}
	in.Reset()
	var set []xhttp2.Setting
	for i := range 2730 {
		set = append(set, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(i % 2)})
	}
	_ = fr.WriteSettings(set...)
	frames := 0
	for ; frames < 20; frames++ {
		if _, err := c.Feed(in.Bytes()); err != nil {
			break
		}
		c.Flushed()
	}
	if frames > 10 {
		t.Errorf("%d frames with %d settings each were taken", frames, len(set))
	}
}
