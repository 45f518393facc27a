// Package http1 holds a corpus of HTTP/1 messages, most of them wrong, and what a proxy has to do with each: the files in
// corpus. A case names the section that decides it, RFC 9110 (semantics), 9112 (HTTP/1.1) or 9113 (HTTP/2).
//
// The tests send every case through the proxy to an origin that records what arrives, at once and byte by byte, over
// one hop and over two with HTTP/2 between them; and to net/http, nginx and HAProxy, which must see what the corpus
// says. After a case that leaves the connection open, a further request on it must find its own answer: nothing was
// left over. The format of the files is that of Parse. Start reading at Case, then TestRequests.
package http1

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Case is one exchange, or several on one connection.
type Case struct {
	File string
	Line int
	Name string
	RFC  string   // "9112 3.2"
	Via  string   // the listener: "main" unless given
	Not  []string // variants that it does not apply to

	Send   []Step
	Answer []byte // what the origin says; nil: it answers 200 to whatever it reads
	End    bool   // the origin ends the connection after Answer

	Want []Response
	Sees []Request // by the origin, in order
}

// Step is bytes that the client sends, or something that it waits for first.
type Step struct {
	Bytes  []byte
	Await  int    // a response with this status
	FIN    bool   // the client ends its direction
	Fields []Pair // HTTP/2: a field section
	Data   []byte // HTTP/2: a DATA frame
}

// Response is what the client must see.
type Response struct {
	Status   int    // 0: none; Refused: HTTP/2, see there
	Close    bool   // the connection ends after it
	Head     bool   // it has no body, whatever its fields say
	Cut      bool   // it ends before it is complete
	Has      []Pair // fields that are there, exactly once each
	Not      []string
	Body     *string
	Raw      *string // bytes after it, on what is no HTTP any more
	Trailers []Pair
	Reason   *string
}

// Refused is the status of an HTTP/2 request that is malformed: a 400 or a stream that is reset (RFC 9113 section 8.1.1).
const Refused = -1

// Request is what the origin must see.
type Request struct {
	Method, Target string
	Has            []Pair
	Not            []string
	Body           string
	Trailers       []Pair
	Framing        string // "length", "chunked", "none"; "": not looked at
}

// Pair is a field.
type Pair struct{ Name, Value string }

// Parse reads a file of cases. Lines are:
//
//	# a comment
//	== name                 a case begins
//	rfc 9112 3.2            the section that decides it
//	via LISTENER
//	not VARIANT why         it does not apply there
//	> text                  the client sends text and CR LF
//	>| text                 the client sends text
//	await 100               the client waits for this status before it sends on
//	fin                     the client ends its direction
//	h2 name: value          the client speaks HTTP/2 and sends this field; the last line of all ends the stream
//	data text               and this DATA frame
//	< text, <| text, end    the same of the origin; without any it answers 200 with an empty body
//	= 200 [close] [head] [cut]   the client sees this response; "= 0 close": none; "= refused": see Refused
//	origin GET /path        the origin sees this request; without a line it sees none
//
// Lines below the last two, indented, say what the message has:
//
//	name: value    a field, once
//	!name          no such field
//	body text      exactly this body; a request without the line has none
//	trailer name: value
//	length, chunked or none      how the body is framed
//	reason text    of a response
//	raw text       what follows the response, no HTTP any more
//
// In text \r \n \t \0 \s (space) \\ and \xHH stand for a byte, and \{60*ab} for repetitions.
func Parse(name string, text []byte) ([]*Case, error) {
	p := parser{file: name}
	for line := range strings.Lines(string(text)) {
		p.line++
		if err := p.take(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, p.line, err)
		}
	}
	return p.cases, nil
}

type parser struct {
	file  string
	line  int
	cases []*Case
	c     *Case
	// What indented lines belong to: one of them.
	response *Response
	request  *Request
}

func (p *parser) take(line string) error {
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	if word == "==" {
		p.c = &Case{File: p.file, Line: p.line, Name: rest, Via: "main"}
		p.cases, p.response, p.request = append(p.cases, p.c), nil, nil
		return nil
	}
	c := p.c
	if c == nil {
		return fmt.Errorf("%q before the first case", line)
	}
	switch word {
	case "rfc":
		c.RFC = rest
	case "via":
		c.Via = rest
	case "not":
		variant, _, _ := strings.Cut(rest, " ")
		c.Not = append(c.Not, variant)
	case "await":
		status, err := strconv.Atoi(rest)
		c.Send = append(c.Send, Step{Await: status})
		return err
	case "fin":
		c.Send = append(c.Send, Step{FIN: true})
	case "end":
		c.End = true
	case ">", ">|", "<", "<|":
		return c.bytes(word, rest)
	case "h2":
		return c.field(rest)
	case "data":
		b, err := unescape(rest)
		c.Send = append(c.Send, Step{Data: []byte(b)})
		return err
	case "=":
		return p.want(strings.Fields(rest))
	case "origin":
		method, target, _ := strings.Cut(rest, " ")
		target, err := unescape(target)
		c.Sees = append(c.Sees, Request{Method: method, Target: target})
		p.response, p.request = nil, &c.Sees[len(c.Sees)-1]
		return err
	case "":
		return p.detail(strings.TrimSpace(line))
	default:
		return fmt.Errorf("%q is no kind of line", word)
	}
	return nil
}

func (c *Case) bytes(word, text string) error {
	b, err := unescape(text)
	if err != nil {
		return err
	}
	if len(word) == 1 {
		b += "\r\n"
	}
	if word[0] == '<' {
		c.Answer = append(c.Answer, b...)
		return nil
	}
	if k := len(c.Send); k == 0 || c.Send[k-1].Bytes == nil {
		c.Send = append(c.Send, Step{})
	}
	last := &c.Send[len(c.Send)-1]
	last.Bytes = append(last.Bytes, b...)
	return nil
}

// field takes a field of HTTP/2; its name may begin with a colon.
func (c *Case) field(text string) error {
	if text == "" {
		return fmt.Errorf("no field")
	}
	name, value, ok := strings.Cut(text[1:], ": ")
	if !ok {
		name, value = strings.TrimSuffix(text[1:], ":"), ""
	}
	name, err := unescape(text[:1] + name)
	if err != nil {
		return err
	}
	value, err = unescape(value)
	if k := len(c.Send); k == 0 || c.Send[k-1].Fields == nil {
		c.Send = append(c.Send, Step{})
	}
	last := &c.Send[len(c.Send)-1]
	last.Fields = append(last.Fields, Pair{name, value})
	return err
}

func (p *parser) want(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("no status")
	}
	var r Response
	for _, w := range words[1:] {
		switch w {
		case "close":
			r.Close = true
		case "head":
			r.Head = true
		case "cut":
			r.Cut = true
		default:
			return fmt.Errorf("%q says nothing about a response", w)
		}
	}
	var err error
	if r.Status = Refused; words[0] != "refused" {
		r.Status, err = strconv.Atoi(words[0])
	}
	p.c.Want = append(p.c.Want, r)
	p.response, p.request = &p.c.Want[len(p.c.Want)-1], nil
	return err
}

// detail reads an indented line.
func (p *parser) detail(line string) error {
	if p.response == nil && p.request == nil {
		return fmt.Errorf("%q belongs to no message", line)
	}
	word, rest, _ := strings.Cut(line, " ")
	text, err := unescape(rest)
	if err != nil {
		return err
	}
	switch {
	case line[0] == '!':
		p.not(line[1:])
	case word == "body" && p.request != nil:
		p.request.Body = text
	case word == "body":
		p.response.Body = &text
	case word == "raw" && p.response != nil:
		p.response.Raw = &text
	case word == "reason" && p.response != nil:
		p.response.Reason = &text
	case word == "trailer":
		f, err := pair(rest)
		if p.request != nil {
			p.request.Trailers = append(p.request.Trailers, f)
		} else {
			p.response.Trailers = append(p.response.Trailers, f)
		}
		return err
	case (word == "length" || word == "chunked" || word == "none") && p.request != nil:
		p.request.Framing = word
	default:
		f, err := pair(line)
		if p.request != nil {
			p.request.Has = append(p.request.Has, f)
		} else {
			p.response.Has = append(p.response.Has, f)
		}
		return err
	}
	return nil
}

func (p *parser) not(name string) {
	if p.request != nil {
		p.request.Not = append(p.request.Not, name)
	} else {
		p.response.Not = append(p.response.Not, name)
	}
}

func pair(line string) (Pair, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return Pair{}, fmt.Errorf("%q is no field", line)
	}
	value, err := unescape(strings.TrimSpace(value))
	return Pair{name, value}, err
}

// unescape reads the escapes of Parse.
func unescape(s string) (string, error) {
	var w bytes.Buffer
	for len(s) > 0 {
		plain, rest, found := strings.Cut(s, `\`)
		w.WriteString(plain)
		if !found {
			break
		}
		if rest == "" {
			return "", fmt.Errorf(`\ at the end`)
		}
		s = rest[1:]
		switch rest[0] {
		case 'r', 'n', 't', '0', 's', '\\':
			w.WriteByte(map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, 's': ' ', '\\': '\\'}[rest[0]])
		case 'x':
			if len(s) < 2 {
				return "", fmt.Errorf(`\x without two digits`)
			}
			v, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				return "", err
			}
			w.WriteByte(byte(v))
			s = s[2:]
		case '{':
			inner, after, ok := strings.Cut(s, "}")
			count, text, both := strings.Cut(inner, "*")
			n, err := strconv.Atoi(count)
			if !ok || !both || err != nil {
				return "", fmt.Errorf(`\{%s} is no repetition`, inner)
			}
			text, err = unescape(text)
			if err != nil {
				return "", err
			}
			w.WriteString(strings.Repeat(text, n))
			s = after
		default:
			return "", fmt.Errorf(`\%c is no escape`, rest[0])
		}
	}
	return w.String(), nil
}
