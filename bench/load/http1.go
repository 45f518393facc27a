package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// http1 sends one request after the other on one connection.
func (c *client) http1() error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	defer n.Close()
	head := "GET / HTTP/1.1\r\nHost: " + c.plan.Host + "\r\nUser-Agent: load\r\nAccept: */*\r\n"
	request, cookie := []byte(head+"\r\n"), ""
	var given *string
	if c.plan.Cookies {
		given = &cookie
	}
	r := bufio.NewReaderSize(n, 16<<10)
	for {
		since, ok := c.wait()
		if !ok {
			return nil
		}
		if _, err := n.Write(request); err != nil {
			return err
		}
		if err := readResponse(r, given); err != nil {
			return err
		}
		c.count(since)
		if cookie != "" {
			request, cookie = []byte(head+"Cookie: "+cookie+"\r\n\r\n"), ""
		}
	}
}

var errStatus = errors.New("the answer is not 200")

// readResponse reads one response with a Content-Length or chunked, and the cookie that it sets, if given is there.
func readResponse(r *bufio.Reader, given *string) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return fmt.Errorf("%w: %q", errStatus, line)
	}
	length, chunked := 0, false
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		} else if bytes.EqualFold(name, []byte("transfer-encoding")) {
			chunked = true
		} else if given != nil && bytes.EqualFold(name, []byte("set-cookie")) {
			pair, _, _ := bytes.Cut(value, []byte(";"))
			*given = string(bytes.TrimSpace(pair))
		}
	}
	if chunked {
		return discardChunks(r)
	}
	_, err = r.Discard(length)
	return err
}

func discardChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return err
		}
	}
}

// bulk asks for bytes with one byte and counts kilobytes until the end.
func (c *client) bulk() error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	defer n.Close()
	if _, err := n.Write([]byte{'g'}); err != nil {
		return err
	}
	if err := n.SetReadDeadline(c.end); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	var bytes int64
	for {
		k, err := n.Read(buf)
		bytes += int64(k)
		c.done.Store(bytes >> 10)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// connects makes a connection, sends one request, and ends it.
func (c *client) connects() error {
	request := []byte("GET / HTTP/1.1\r\nHost: " + c.plan.Host + "\r\nConnection: close\r\n\r\n")
	for {
		since, ok := c.wait()
		if !ok {
			return nil
		}
		if err := c.connectOnce(request); err != nil {
			return err
		}
		c.count(since)
	}
}

func (c *client) connectOnce(request []byte) error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := n.Write(request); err != nil {
		return err
	}
	return readResponse(bufio.NewReaderSize(n, 2<<10), nil)
}
